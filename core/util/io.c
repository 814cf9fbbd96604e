#include "util/io.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>

static bool has_parent_component(const char *path) {
        for (const char *c = path; *c;) {
                size_t length = strcspn(c, "/");

                if (length == 2 && c[0] == '.' && c[1] == '.')
                        return true;
                c += length;
                c += *c == '/';
        }
        return false;
}

int open_beneath(int dir_fd, const char *path, int flags, mode_t mode) {
        struct open_how how = {
                .flags = (uint64_t) (unsigned) (flags | O_CLOEXEC),
                .mode = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? mode : 0,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
        };
        int fd;

        if (has_parent_component(path))
                return -EXDEV;
        do
                fd = (int) syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
        while (fd < 0 && errno == EINTR);
        return fd < 0 ? -errno : fd;
}

int pread_whole(int fd, void *buffer, size_t length, uint64_t offset) {
        char *to = buffer;

        if (offset > INT64_MAX || length > INT64_MAX - offset)
                return -EINVAL;
        while (length > 0) {
                ssize_t n = pread(fd, to, length, (off_t) offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return -ENODATA;
                to += n;
                length -= (size_t) n;
                offset += (uint64_t) n;
        }
        return 0;
}

int pwrite_whole(int fd, const void *buffer, size_t length, uint64_t offset) {
        const char *from = buffer;

        if (offset > INT64_MAX || length > INT64_MAX - offset)
                return -EINVAL;
        while (length > 0) {
                ssize_t n = pwrite(fd, from, length, (off_t) offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -ENOSPC;
                from += n;
                length -= (size_t) n;
                offset += (uint64_t) n;
        }
        return 0;
}

int write_whole(int fd, const void *buffer, size_t length) {
        const char *from = buffer;

        while (length > 0) {
                ssize_t n = write(fd, from, length);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                from += n;
                length -= (size_t) n;
        }
        return 0;
}
