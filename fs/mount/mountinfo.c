#include "mount/mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "util/cleanup.h"

int mountinfo_open(void) {
        int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);

        return fd < 0 ? -errno : fd;
}

bool mountinfo_has(int fd, dev_t device) {
        CLEANUP(close_file) FILE *list = NULL;
        CLEANUP(freep) char *line = NULL;
        unsigned major_number, minor_number;
        size_t room = 0;
        int copy;

        copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (copy < 0)
                return true;
        list = fdopen(copy, "r");
        if (!list) {
                close(copy);
                return true;
        }
        if (lseek(copy, 0, SEEK_SET) < 0)
                return true;
        while (getline(&line, &room, list) > 0)
                if (sscanf(line, "%*u %*u %u:%u ", &major_number, &minor_number) == 2 &&
                    makedev(major_number, minor_number) == device)
                        return true;
        return ferror(list);
}

/* Spaces and the like are written as three octal digits. */
static void unescape(char *text) {
        char *to = text;
        unsigned code;

        for (; *text; to++) {
                if (*text == '\\' && sscanf(text + 1, "%3o", &code) == 1) {
                        *to = (char) code;
                        text += strlen("\\040");
                } else
                        *to = *text++;
        }
        *to = 0;
}

static bool is_below(const char *path, const char *directory) {
        size_t length = strlen(directory);

        return strncmp(path, directory, length) == 0 && (!path[length] || path[length] == '/');
}

int mountinfo_below(const char *directory, Strings *ret) {
        CLEANUP(close_file) FILE *list = fopen("/proc/self/mountinfo", "re");
        CLEANUP(strings_free) Strings found = { 0 };
        CLEANUP(freep) char *line = NULL;
        size_t room = 0;
        int rc = 0;

        if (!list)
                return -errno;
        while (rc >= 0 && getline(&line, &room, list) > 0) {
                char *rest = line, *path = NULL;

                for (int field = 0; field < 5 && rest; field++)
                        path = strsep(&rest, " ");
                if (!path)
                        continue;
                unescape(path);
                if (is_below(path, directory))
                        rc = strings_add(&found, path);
        }
        if (rc < 0)
                return rc;
        *ret = found;
        found = (Strings) { 0 };
        return 0;
}
