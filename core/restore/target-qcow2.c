/* core/restore/target-qcow2.c - a qcow2 image in a file. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/qcow2/writer.h"
#include "restore/in-use.h"
#include "restore/partial.h"
#include "restore/target-kinds.h"
#include "sources/imageio-uri.h"
#include "sources/nbd-uri.h"

typedef struct Qcow2Target {
        DiskTarget target;
        Partial partial;
        Qcow2WriterFile file; /* what partial has open, and one more */
        char *backing;        /* or NULL */
        Qcow2Writer *writer;
} Qcow2Target;

static bool qcow2_claims(const TargetRequest *request) {
        struct stat st;

        return strcmp(request->format, "qcow2") == 0 && !nbd_uri_claims(request->name) &&
               !imageio_uri_claims(request->name) && (stat(request->name, &st) < 0 || !S_ISBLK(st.st_mode));
}

static void qcow2_close(DiskTarget *base, bool keep) {
        Qcow2Target *target = (Qcow2Target *) base;

        qcow2_writer_free(target->writer);
        if (!keep)
                partial_remove(&target->partial);
        close_fd(&target->file.file.direct_fd);
        partial_clear(&target->partial);
        free(target->backing);
        free(target);
}

static int qcow2_clear(DiskTarget *base, Reason *reterr) {
        Qcow2Target *target = (Qcow2Target *) base;

        target->writer = qcow2_writer_free(target->writer);
        return qcow2_writer_new(&target->file, &target->writer, reterr);
}

/* With what an interrupted one left, or anew. */
static int begin(Qcow2Target *target, Reason *reterr) {
        DiskTarget *base = &target->target;
        int rc;

        rc = base->found ? qcow2_writer_resume(&target->file, base->cancel, &target->writer, reterr) : 0;
        if (rc == 0) {
                base->clean = true;
                rc = qcow2_writer_new(&target->file, &target->writer, reterr);
        }
        return rc < 0 ? rc : 0;
}

static int qcow2_open(DiskTarget *base, const TargetRequest *request, Reason *reterr) {
        Qcow2Target *target = (Qcow2Target *) base;
        int rc;

        target->partial.fd = target->file.file.direct_fd = -1;
        rc = partial_open(request->name, request->replace, &target->partial, reterr);
        if (rc < 0)
                return rc;
        base->found = target->partial.found;
        base->shown = strdup(target->partial.path);
        base->unfinished = strdup(target->partial.partial_path);
        target->backing = request->backing ? strdup(request->backing) : NULL;
        if (!base->shown || !base->unfinished || (request->backing && !target->backing))
                return fail_oom(reterr);
        rc = file_check_unlocked(target->partial.fd, target->partial.partial_path, reterr);
        if (rc < 0)
                return rc;
        target->file = (Qcow2WriterFile) {
                .file = { target->partial.fd, partial_open_direct(&target->partial) },
                .name = target->partial.partial_path,
                .backing = target->backing,
                .disk_size = base->disk_size,
        };
        rc = begin(target, reterr);
        if (rc < 0)
                return rc;
        base->size = qcow2_writer_size(target->writer);
        base->grain = QCOW2_WRITER_GRAIN;
        return 0;
}

static int qcow2_write(DiskTarget *base, void *connection, const void *buffer, size_t length, uint64_t offset,
                       Reason *reterr) {
        (void) connection;
        return qcow2_writer_write(((Qcow2Target *) base)->writer, buffer, length, offset, reterr);
}

static int qcow2_zero(DiskTarget *base, void *connection, uint64_t length, uint64_t offset, Reason *reterr) {
        (void) connection;
        return qcow2_writer_zero(((Qcow2Target *) base)->writer, length, offset, reterr);
}

static int qcow2_read(DiskTarget *base, void *connection, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        (void) connection;
        return qcow2_writer_read(((Qcow2Target *) base)->writer, buffer, length, offset, reterr);
}

static uint64_t qcow2_zeroes(DiskTarget *base, void *connection, uint64_t length, uint64_t offset) {
        (void) connection;
        return qcow2_writer_zeroes(((Qcow2Target *) base)->writer, length, offset);
}

static int qcow2_sync(DiskTarget *base, void *connection, Reason *reterr) {
        const Qcow2Target *target = (const Qcow2Target *) base;
        int rc = qcow2_writer_sync(target->writer, reterr);

        (void) connection;
        if (rc == 0 && target->file.file.direct_fd < 0) /* what is compared comes from the disk */
                (void) posix_fadvise(target->partial.fd, 0, 0, POSIX_FADV_DONTNEED);
        return rc;
}

static int qcow2_finish(DiskTarget *base, Reason *reterr) {
        Qcow2Target *target = (Qcow2Target *) base;
        int rc = qcow2_writer_finish(target->writer, reterr);

        return rc < 0 ? rc : partial_finish(&target->partial, reterr);
}

const TargetOps target_qcow2_ops = {
        .name = "qcow2",
        .size = sizeof(Qcow2Target),
        .claims = qcow2_claims,
        .open = qcow2_open,
        .clear = qcow2_clear,
        .write = qcow2_write,
        .zero = qcow2_zero,
        .read = qcow2_read,
        .zeroes = qcow2_zeroes,
        .sync = qcow2_sync,
        .finish = qcow2_finish,
        .close = qcow2_close,
};
