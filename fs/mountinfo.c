#include "mountinfo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
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
