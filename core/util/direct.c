#include "util/direct.h"

#include <errno.h>
#include <fcntl.h>

#include "util/bytes.h"
#include "util/io.h"

static size_t whole_grains(const DirectFile *file, size_t length) {
        return file->direct_fd >= 0 ? round_down(length, DIRECT_GRAIN) : 0;
}

int direct_read(const DirectFile *file, void *buffer, size_t length, uint64_t offset) {
        size_t whole = whole_grains(file, length);
        int rc = 0;

        if (whole > 0)
                rc = pread_whole(file->direct_fd, buffer, whole, offset);
        if (rc == 0 && whole < length)
                rc = pread_whole(file->fd, (char *) buffer + whole, length - whole, offset + whole);
        return rc;
}

int direct_write(const DirectFile *file, const void *buffer, size_t length, uint64_t offset) {
        size_t whole = whole_grains(file, length);
        int rc = 0;

        if (whole > 0)
                rc = pwrite_whole(file->direct_fd, buffer, whole, offset);
        if (rc == 0 && whole < length)
                rc = pwrite_whole(file->fd, (const char *) buffer + whole, length - whole, offset + whole);
        return rc;
}

int direct_set_aside(const DirectFile *file, uint64_t offset, uint64_t length) {
        int rc;

        if (file->direct_fd < 0)
                return -EOPNOTSUPP;
        do
                rc = fallocate(file->fd, 0, (off_t) offset, (off_t) length);
        while (rc < 0 && errno == EINTR);
        return rc < 0 ? -errno : 0;
}
