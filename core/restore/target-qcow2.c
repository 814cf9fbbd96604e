/* core/restore/target-qcow2.c - a qcow2 image in a file: made by qemu-img, written through a qemu-nbd of our own. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "restore/in-use.h"
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
#define UNLOCK_WAIT 10000 /* milliseconds */
#define UNLOCK_INTERVAL 20

typedef struct Qcow2Target {
        DiskTarget target;
        Partial partial;
        char *backing;         /* or NULL */
        NbdServer *server;
        NbdConnection *connections[CONNECTIONS_MAX]; /* not given out yet */
        atomic_size_t connection_count;
} Qcow2Target;

static bool qcow2_claims(const TargetRequest *request) {
        struct stat st;

        return strcmp(request->format, "qcow2") == 0 && !nbd_uri_claims(request->name) &&
               !imageio_uri_claims(request->name) && (stat(request->name, &st) < 0 || !S_ISBLK(st.st_mode));
}

static void stop_server(Qcow2Target *target) {
        while (target->connection_count > 0)
                nbd_writer_free(target->connections[--target->connection_count]);
        if (target->server)
                target->server = nbd_server_stop(target->server);
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

static int start_server(Qcow2Target *target, const char *socket_path, Reason *reterr) {
        CLEANUP(freep) char *path = image_escape_path(target->partial.partial_path), *options = NULL;
        CLEANUP(close_fd) int direct_fd = partial_open_direct(&target->partial);
        const char *argv[] = { "qemu-nbd", "--persistent", "--shared=16", "--discard=unmap", "--export-name=" EXPORT,
                               direct_fd >= 0 ? "--cache=none" : "--cache=writeback", "--image-opts", NULL, NULL };

        if (!path || asprintf(&options, "driver=qcow2,file.driver=file,file.filename=%s", path) < 0) {
                options = NULL;
                return fail_oom(reterr);
        }
        argv[7] = options;
        return nbd_server_start(argv, socket_path, &target->server, reterr);
}

static int open_connection(Qcow2Target *target, const char *socket_path, Reason *reterr) {
        const NbdAddress address = { .socket_path = socket_path, .export_name = EXPORT };
        Reason why = REASON_INIT, last = REASON_INIT;
        NbdConnection *connection;
        int rc;

        rc = nbd_writer_open(&address, target->target.cancel, &connection, &why);
        if (rc == 0) {
                target->connections[target->connection_count++] = connection;
                return 0;
        }
        if (rc == -ECANCELED || nbd_server_check(target->server, &last) == 0)
                return fail(reterr, rc, "%s", why.text);
        return fail(reterr, -EIO, "cannot open the image %s: %.*s", target->partial.partial_path, REASON_MAX / 2, last.text);
}

/* All connections are made at once: so nothing of the socket is left by whatever ends us later. */
static int serve(Qcow2Target *target, Reason *reterr) {
        char directory[] = "/var/tmp/virtbackupfs-XXXXXX", socket_path[sizeof directory + 8];
        int rc;

        if (!mkdtemp(directory))
                return fail_errno(reterr, -errno, "cannot make a directory in /var/tmp");
        snprintf(socket_path, sizeof socket_path, "%s/nbd", directory);
        rc = start_server(target, socket_path, reterr);
        while (rc == 0 && target->connection_count < CONNECTIONS_MAX)
                rc = open_connection(target, socket_path, reterr);
        unlink(socket_path);
        rmdir(directory);
        if (rc == 0) /* a multiple of 512 */
                target->target.size = target->connections[0]->size;
        return rc;
}

static int qcow2_connect(DiskTarget *base, void **ret, Reason *reterr) {
        Qcow2Target *target = (Qcow2Target *) base;

        (void) reterr;
        *ret = target->connections[atomic_fetch_sub(&target->connection_count, 1) - 1]; /* no more than there are */
        return 0;
}

static int make_and_serve(Qcow2Target *target, Reason *reterr) {
        int rc = make_image(target, reterr);

        return rc == 0 ? serve(target, reterr) : rc;
}

static int qcow2_clear(DiskTarget *base, Reason *reterr) {
        Qcow2Target *target = (Qcow2Target *) base;

        stop_server(target);
        return make_and_serve(target, reterr);
}

/* The qemu-nbd of a restore that was killed takes a moment to end, and has the image locked until then. */
static int await_unlocked(const Qcow2Target *target, Reason *reterr) {
        static const struct timespec interval = { .tv_nsec = UNLOCK_INTERVAL * 1000000L };
        int rc;

        for (unsigned waited = 0;; waited += UNLOCK_INTERVAL) {
                rc = file_check_unlocked(target->partial.fd, target->partial.partial_path, reterr);
                if (rc != -EBUSY || waited >= UNLOCK_WAIT)
                        return rc;
                if (target->target.cancel && atomic_load(target->target.cancel))
                        return fail(reterr, -ECANCELED, "interrupted");
                nanosleep(&interval, NULL);
        }
}

/* What there is of it may be no image of this size at all. */
static bool serve_found(Qcow2Target *target) {
        uint64_t wanted = target->target.disk_size;

        return mend_image(target, NULL) == 0 && serve(target, NULL) == 0 && target->target.size >= wanted &&
               target->target.size - wanted < 512;
}

static int qcow2_open(DiskTarget *base, const TargetRequest *request, Reason *reterr) {
        Qcow2Target *target = (Qcow2Target *) base;
        int rc;

        base->connections_max = CONNECTIONS_MAX;
        target->partial.fd = -1;
        rc = partial_open(request->name, request->replace, &target->partial, reterr);
        if (rc < 0)
                return rc;
        base->found = target->partial.found;
        target->backing = request->backing ? strdup(request->backing) : NULL;
        base->shown = strdup(target->partial.path);
        base->unfinished = strdup(target->partial.partial_path);
        if (!base->shown || !base->unfinished || (request->backing && !target->backing))
                return fail_oom(reterr);
        rc = await_unlocked(target, reterr);
        if (rc < 0)
                return rc;
        if (base->found && serve_found(target))
                return 0;
        stop_server(target);
        base->clean = true;
        return make_and_serve(target, reterr);
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
        .size = sizeof(Qcow2Target),
        .claims = qcow2_claims,
        .open = qcow2_open,
        .clear = qcow2_clear,
        .connect = qcow2_connect,
        .disconnect = nbd_writer_disconnect,
        .write = nbd_writer_write,
        .zero = nbd_writer_zero,
        .read = nbd_writer_read,
        .zeroes = nbd_writer_zeroes,
        .sync = nbd_writer_sync,
        .finish = qcow2_finish,
        .close = qcow2_close,
};
