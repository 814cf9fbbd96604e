/* core/restore/target-qcow2.c - a qcow2 image in a file: made by qemu-img, written through a qemu-nbd of our own. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "restore/nbd-writer.h"
#include "restore/partial.h"
#include "restore/target-kinds.h"
#include "sources/image-server.h"
#include "sources/nbd-server.h"
#include "sources/nbd-uri.h"
#include "sources/imageio-uri.h"
#include "util/program.h"

#define EXPORT "disk"
#define CONNECTIONS_MAX 4
#define OUTPUT_MAX (64u << 10)

typedef struct Qcow2Target {
        DiskTarget target;
        Partial partial;
        char *backing;         /* or NULL */
        char directory[40];    /* of the socket; "": none */
        char *socket_path;
        NbdServer *server;
} Qcow2Target;

static bool qcow2_claims(const TargetRequest *request) {
        struct stat st;

        return strcmp(request->format, "qcow2") == 0 && !nbd_uri_claims(request->name) &&
               !imageio_uri_claims(request->name) && (stat(request->name, &st) < 0 || !S_ISBLK(st.st_mode));
}

static void stop_server(Qcow2Target *target) {
        if (target->server)
                target->server = nbd_server_stop(target->server);
        free(STEAL_PTR(target->socket_path));
        if (target->directory[0])
                rmdir(target->directory);
        target->directory[0] = 0;
}

static void qcow2_close(DiskTarget *base, bool keep) {
        Qcow2Target *target = (Qcow2Target *) base;

        stop_server(target);
        if (!keep)
                partial_remove(&target->partial);
        partial_clear(&target->partial);
        free(target->backing);
        free(target);
}

static int run(const Qcow2Target *target, const char *const *argv, Reason *reterr) {
        CLEANUP(freep) char *output = NULL;

        return program_output(argv, OUTPUT_MAX, target->target.cancel, &output, reterr);
}

static int make_image(const Qcow2Target *target, Reason *reterr) {
        char size[24];
        const char *const alone[] = { "qemu-img", "create", "-q", "-f", "qcow2", target->partial.partial_path, size, NULL };
        const char *const above[] = { "qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", target->backing,
                                      target->partial.partial_path, size, NULL };
        int rc;

        snprintf(size, sizeof size, "%" PRIu64, target->target.disk_size);
        rc = run(target, target->backing ? above : alone, reterr);
        return rc < 0 ? fail_within(reterr, rc, "cannot make the image %s", target->partial.partial_path) : 0;
}

/* What an interrupted restore left of it is whole, but may have clusters that nothing refers to. */
static int mend_image(const Qcow2Target *target, Reason *reterr) {
        const char *const argv[] = { "qemu-img", "check", "-q", "-r", "leaks", "-f", "qcow2", target->partial.partial_path,
                                     NULL };

        return run(target, argv, reterr);
}

static int start_server(Qcow2Target *target, Reason *reterr) {
        CLEANUP(freep) char *path = image_escape_path(target->partial.partial_path), *options = NULL;
        const char *argv[] = { "qemu-nbd", "--persistent", "--shared=16", "--discard=unmap", "--export-name=" EXPORT,
                               "--image-opts", NULL, NULL };
        int rc;

        if (!path || asprintf(&options, "driver=qcow2,file.driver=file,file.filename=%s", path) < 0) {
                options = NULL;
                return fail_oom(reterr);
        }
        argv[6] = options;
        strcpy(target->directory, "/var/tmp/virtbackupfs-XXXXXX");
        if (!mkdtemp(target->directory)) {
                rc = -errno;
                target->directory[0] = 0;
                return fail_errno(reterr, rc, "cannot make a directory in /var/tmp");
        }
        if (asprintf(&target->socket_path, "%s/nbd", target->directory) < 0) {
                target->socket_path = NULL;
                return fail_oom(reterr);
        }
        return nbd_server_start(argv, target->socket_path, &target->server, reterr);
}

static int qcow2_connect(DiskTarget *base, void **ret, Reason *reterr) {
        Qcow2Target *target = (Qcow2Target *) base;
        const NbdAddress address = { .socket_path = target->socket_path, .export_name = EXPORT };
        Reason why = REASON_INIT, last = REASON_INIT;
        NbdConnection *connection;
        int rc;

        rc = nbd_writer_open(&address, base->cancel, &connection, &why);
        if (rc == 0) {
                *ret = connection;
                return 0;
        }
        if (rc == -ECANCELED || nbd_server_check(target->server, &last) == 0)
                return fail(reterr, rc, "%s", why.text);
        return fail(reterr, -EIO, "cannot open the image %s: %.*s", target->partial.partial_path, REASON_MAX / 2, last.text);
}

static void qcow2_disconnect(DiskTarget *base, void *connection) {
        (void) base;
        nbd_writer_free(connection);
}

/* Learns its size, which is a multiple of 512. */
static int look_at_server(Qcow2Target *target, Reason *reterr) {
        NbdConnection *connection;
        void *found;
        int rc;

        rc = qcow2_connect(&target->target, &found, reterr);
        if (rc < 0)
                return rc;
        connection = found;
        target->target.size = connection->size;
        nbd_writer_free(connection);
        return 0;
}

static int make_and_serve(Qcow2Target *target, Reason *reterr) {
        int rc = make_image(target, reterr);

        if (rc == 0)
                rc = start_server(target, reterr);
        if (rc == 0)
                rc = look_at_server(target, reterr);
        return rc;
}

static int qcow2_clear(DiskTarget *base, Reason *reterr) {
        Qcow2Target *target = (Qcow2Target *) base;

        stop_server(target);
        return make_and_serve(target, reterr);
}

/* What there is of it may be no image of this size at all. */
static bool serve_found(Qcow2Target *target) {
        uint64_t wanted = target->target.disk_size;

        return mend_image(target, NULL) == 0 && start_server(target, NULL) == 0 && look_at_server(target, NULL) == 0 &&
               target->target.size >= wanted && target->target.size - wanted < 512;
}

static int qcow2_open(const TargetRequest *request, DiskTarget **ret, Reason *reterr) {
        Qcow2Target *target = calloc(1, sizeof *target);
        int rc;

        if (!target)
                return fail_oom(reterr);
        target->target = (DiskTarget) {
                .ops = &target_qcow2_ops,
                .disk_size = request->size,
                .cancel = request->cancel,
                .grain = TARGET_GRAIN,
                .connections_max = CONNECTIONS_MAX,
        };
        target->partial.fd = -1;
        rc = partial_open(request->name, request->replace, &target->partial, reterr);
        if (rc == 0 && request->backing) {
                target->backing = strdup(request->backing);
                rc = target->backing ? 0 : fail_oom(reterr);
        }
        if (rc == 0) {
                target->target.shown = strdup(target->partial.path);
                target->target.unfinished = strdup(target->partial.partial_path);
                if (!target->target.shown || !target->target.unfinished)
                        rc = fail_oom(reterr);
        }
        if (rc == 0 && !(target->partial.found && serve_found(target))) {
                stop_server(target);
                rc = make_and_serve(target, reterr);
                target->target.clean = true;
        }
        if (rc < 0) {
                disk_target_close(&target->target, target->partial.found);
                return rc;
        }
        *ret = &target->target;
        return 0;
}

/* An error that has no other name yet. */
static int within(const DiskTarget *base, int rc, Reason *reterr) {
        return rc < 0 && rc != -EOPNOTSUPP ? fail_within(reterr, rc, "%s", base->unfinished) : rc;
}

static int qcow2_write(DiskTarget *base, void *connection, const void *buffer, size_t length, uint64_t offset,
                       Reason *reterr) {
        return within(base, nbd_connection_write(connection, buffer, length, offset, reterr), reterr);
}

static int qcow2_zero(DiskTarget *base, void *connection, uint64_t length, uint64_t offset, Reason *reterr) {
        return within(base, nbd_writer_zero(connection, length, offset, reterr), reterr);
}

static int qcow2_read(DiskTarget *base, void *connection, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        return within(base, nbd_connection_read(connection, buffer, length, offset, reterr), reterr);
}

static uint64_t qcow2_zeroes(DiskTarget *base, void *connection, uint64_t length, uint64_t offset) {
        (void) base;
        return nbd_writer_zeroes(connection, length, offset);
}

static int qcow2_sync(DiskTarget *base, void *connection, Reason *reterr) {
        return within(base, nbd_writer_flush(connection, reterr), reterr);
}

/* The server ends first, which has words of its own for what goes wrong then. */
static int qcow2_finish(DiskTarget *base, Reason *reterr) {
        Qcow2Target *target = (Qcow2Target *) base;
        int rc;

        rc = nbd_server_end(target->server, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "cannot finish %s", target->partial.partial_path);
        if (fsync(target->partial.fd) < 0)
                return fail_errno(reterr, -errno, "cannot sync %s", target->partial.partial_path);
        return partial_finish(&target->partial, reterr);
}

const TargetOps target_qcow2_ops = {
        .name = "qcow2",
        .claims = qcow2_claims,
        .open = qcow2_open,
        .clear = qcow2_clear,
        .connect = qcow2_connect,
        .disconnect = qcow2_disconnect,
        .write = qcow2_write,
        .zero = qcow2_zero,
        .read = qcow2_read,
        .zeroes = qcow2_zeroes,
        .sync = qcow2_sync,
        .finish = qcow2_finish,
        .close = qcow2_close,
};
