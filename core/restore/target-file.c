/* core/restore/target-file.c - a raw image in a file, with holes where the disk is zero. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "restore/partial.h"
#include "restore/target-kinds.h"
#include "util/direct.h"

typedef struct FileTarget {
        DiskTarget target;
        Partial partial;
        DirectFile file; /* what partial has open, and one more */
} FileTarget;

static bool file_claims(const TargetRequest *request) {
        (void) request;
        return true;
}

static void file_close(DiskTarget *base, bool keep) {
        FileTarget *target = (FileTarget *) base;

        if (!keep)
                partial_remove(&target->partial);
        close_fd(&target->file.direct_fd);
        partial_clear(&target->partial);
        free(target);
}

static int set_size(const FileTarget *target, Reason *reterr) {
        if (ftruncate(target->partial.fd, (off_t) target->target.size) < 0)
                return fail_errno(reterr, -errno, "cannot give %s a size of %llu bytes", target->partial.partial_path,
                                  (unsigned long long) target->target.size);
        return 0;
}

static int file_clear(DiskTarget *base, Reason *reterr) {
        const FileTarget *target = (const FileTarget *) base;

        if (ftruncate(target->partial.fd, 0) < 0)
                return fail_errno(reterr, -errno, "cannot empty %s", target->partial.partial_path);
        return set_size(target, reterr);
}

static int file_open(DiskTarget *base, const TargetRequest *request, Reason *reterr) {
        FileTarget *target = (FileTarget *) base;
        struct stat st;
        int rc;

        base->size = request->size;
        target->partial.fd = target->file.direct_fd = -1;
        rc = partial_open(request->name, request->replace, &target->partial, reterr);
        if (rc < 0)
                return rc;
        base->found = target->partial.found;
        base->clean = !base->found;
        base->shown = strdup(target->partial.path);
        base->unfinished = strdup(target->partial.partial_path);
        if (!base->shown || !base->unfinished)
                return fail_oom(reterr);
        if (fstat(target->partial.fd, &st) < 0)
                return fail_errno(reterr, -errno, "cannot look at %s", target->partial.partial_path);
        target->file = (DirectFile) { target->partial.fd, partial_open_direct(&target->partial) };
        return (uint64_t) st.st_size == base->size ? 0 : set_size(target, reterr);
}

static int file_write(DiskTarget *base, void *connection, const void *buffer, size_t length, uint64_t offset,
                      Reason *reterr) {
        const FileTarget *target = (const FileTarget *) base;
        int rc = direct_write(&target->file, buffer, length, offset);

        (void) connection;
        return rc < 0 ? fail_errno(reterr, rc, "cannot write %s", target->partial.partial_path) : 0;
}

static int file_zero(DiskTarget *base, void *connection, uint64_t length, uint64_t offset, Reason *reterr) {
        const FileTarget *target = (const FileTarget *) base;

        (void) connection;
        if (fallocate(target->partial.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t) offset, (off_t) length) == 0)
                return 0;
        return errno == EOPNOTSUPP ? -EOPNOTSUPP
                                   : fail_errno(reterr, -errno, "cannot punch a hole into %s", target->partial.partial_path);
}

static int file_read(DiskTarget *base, void *connection, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        const FileTarget *target = (const FileTarget *) base;
        int rc = direct_read(&target->file, buffer, length, offset);

        (void) connection;
        return rc < 0 ? fail_errno(reterr, rc, "cannot read %s", target->partial.partial_path) : 0;
}

static uint64_t file_zeroes(DiskTarget *base, void *connection, uint64_t length, uint64_t offset) {
        const FileTarget *target = (const FileTarget *) base;
        off_t data = lseek(target->partial.fd, (off_t) offset, SEEK_DATA);

        (void) connection;
        if (data < 0)
                return errno == ENXIO ? length : 0;
        return (uint64_t) data - offset;
}

static int file_reserve(DiskTarget *base, uint64_t length, uint64_t offset) {
        return direct_set_aside(&((FileTarget *) base)->file, offset, length);
}

static int file_sync(DiskTarget *base, void *connection, Reason *reterr) {
        const FileTarget *target = (const FileTarget *) base;

        (void) connection;
        if (fsync(target->partial.fd) < 0)
                return fail_errno(reterr, -errno, "cannot sync %s", target->partial.partial_path);
        (void) posix_fadvise(target->partial.fd, 0, 0, POSIX_FADV_DONTNEED); /* what is compared comes from the disk */
        return 0;
}

static int file_finish(DiskTarget *base, Reason *reterr) {
        return partial_finish(&((FileTarget *) base)->partial, reterr);
}

const TargetOps target_file_ops = {
        .name = "file",
        .size = sizeof(FileTarget),
        .claims = file_claims,
        .open = file_open,
        .clear = file_clear,
        .write = file_write,
        .zero = file_zero,
        .read = file_read,
        .zeroes = file_zeroes,
        .reserve = file_reserve,
        .sync = file_sync,
        .finish = file_finish,
        .close = file_close,
};
