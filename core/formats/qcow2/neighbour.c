#include "formats/qcow2/neighbour.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/io.h"
#include "util/text.h"

void neighbour_clear(Neighbour *neighbour) {
        free(neighbour->path);
        *neighbour = (Neighbour) { 0 };
}

/* "json:{…}" describes a tree of block nodes: the file name that is deepest in it, where they are one above the other. */
static char *file_name_of_json(const char *text) {
        json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *node = object;
        const char *name = NULL;
        char *copied;

        while (json_is_object(node)) {
                name = json_string_value(json_object_get(node, "filename")) ?:
                       json_string_value(json_object_get(node, "file.filename")) ?: name;
                node = json_object_get(node, "file");
        }
        copied = name ? strdup(name) : NULL;
        json_decref(object);
        return copied;
}

/* The plain file name in a name as QEMU takes it; NULL where it is none, or there is no memory. */
static char *plain_name(const char *name) {
        size_t scheme = 0;

        if (strncmp(name, "json:", 5) == 0)
                return file_name_of_json(name + 5);
        if (strncmp(name, "file:", 5) == 0)
                return strdup(name + 5);
        /* What is in front of a colon is a protocol, unless there is a slash before. */
        while (isalnum((unsigned char) name[scheme]) || (name[scheme] && strchr("+-.", name[scheme])))
                scheme++;
        return scheme > 0 && name[scheme] == ':' ? NULL : strdup(name);
}

/* Takes "." and ".." out of a path; 0, or -EXDEV where it leads out. */
static int normalize(char *path) {
        char *to = path, *rest = path;

        for (char *part; (part = strsep(&rest, "/"));) {
                size_t length = strlen(part);

                if (length == 0 || strcmp(part, ".") == 0)
                        continue;
                if (strcmp(part, "..") == 0) {
                        if (to == path)
                                return -EXDEV;
                        while (to > path && *--to != '/')
                                ;
                        continue;
                }
                if (to > path)
                        *to++ = '/';
                memmove(to, part, length);
                to += length;
        }
        *to = 0;
        return to > path ? 0 : -EXDEV;
}

/* A regular file at DIRECTORY/NAME, directory being the image's up to length. */
static int look(int root_fd, const char *image, size_t length, const char *name, Neighbour *ret) {
        CLEANUP(freep) char *path = NULL;
        CLEANUP(close_fd) int fd = -1;
        struct stat st;

        if (text_format(&path, "%.*s/%s", (int) length, image, name) < 0)
                return -ENOMEM;
        if (normalize(path) < 0)
                return -ENOENT;
        fd = open_beneath(root_fd, path, O_PATH, 0);
        if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
                return -ENOENT;
        *ret = (Neighbour) { .path = STEAL_PTR(path), .st = st };
        return 0;
}

/* An absolute name, where the root is what it begins with. */
static int look_from_root(int root_fd, const char *name, Neighbour *ret) {
        char link[40], root[PATH_MAX];
        ssize_t length;

        snprintf(link, sizeof link, "/proc/self/fd/%d", root_fd);
        length = readlink(link, root, sizeof root);
        if (length <= 0 || (size_t) length >= sizeof root || strncmp(name, root, (size_t) length) != 0 ||
            (length > 1 && name[length] != '/'))
                return -ENOENT;
        return look(root_fd, "", 0, name + length, ret);
}

int neighbour_find(int root_fd, const char *image, const char *name, Neighbour *ret, Reason *reterr) {
        CLEANUP(freep) char *plain = plain_name(name);
        const char *slash = strrchr(image, '/'), *base;
        size_t directory = slash ? (size_t) (slash - image) : 0;
        int rc;

        if (!plain)
                return fail(reterr, -ENOTSUP, "is no file beside it");
        rc = *plain == '/' ? look_from_root(root_fd, plain, ret) : look(root_fd, image, directory, plain, ret);
        if (rc != -ENOENT)
                return rc < 0 ? fail_oom(reterr) : 0;
        base = strrchr(plain, '/') ? strrchr(plain, '/') + 1 : plain;
        rc = *base ? look(root_fd, image, directory, base, ret) : -ENOENT;
        if (rc < 0)
                return rc == -ENOMEM ? fail_oom(reterr) : fail(reterr, rc, "is not there");
        ret->moved = strcmp(base, plain) != 0;
        return 0;
}
