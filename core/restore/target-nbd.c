/* core/restore/target-nbd.c - an export of an NBD server. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "restore/nbd-writer.h"
#include "restore/target-kinds.h"
#include "sources/nbd-uri.h"
#include "util/bytes.h"

#define CONNECTIONS_MAX 4
#define ANOTHER_MS 1000 /* how long a server may take to answer beside a connection that is there */

typedef struct NbdTarget {
        DiskTarget target;
        NbdUri uri;
        _Atomic(NbdConnection *) first; /* by which it was looked at; NULL once it is in use */
} NbdTarget;

static bool nbd_claims(const TargetRequest *request) {
        return nbd_uri_claims(request->name);
}

static void nbd_target_close(DiskTarget *base, bool keep) {
        NbdTarget *target = (NbdTarget *) base;

        (void) keep;
        nbd_writer_free(target->first);
        nbd_uri_clear(&target->uri);
        free(target);
}

static int open_connection(const NbdTarget *target, unsigned connect_ms, NbdConnection **ret, Reason *reterr) {
        NbdAddress address = nbd_uri_address(&target->uri);

        address.connect_ms = connect_ms;
        return nbd_writer_open(&address, target->target.cancel, ret, reterr);
}

static int prepare(NbdTarget *target, const TargetRequest *request, Reason *reterr) {
        NbdConnection *connection;
        int rc;

        rc = nbd_uri_parse(request->name, &target->uri, reterr);
        if (rc < 0)
                return rc;
        if (target->uri.bitmap || target->uri.checkpoint || target->uri.image)
                return fail(reterr, -EINVAL, "%s: bitmap, checkpoint and image are parameters of what is captured",
                            target->uri.shown);
        if (target->uri.tls && !target->uri.verify && request->tell)
                request->tell(request->context, "whose certificate the NBD server has is not verified");
        rc = open_connection(target, 0, &connection, reterr);
        if (rc < 0)
                return rc;
        target->first = connection;
        target->target.shown = strdup(target->uri.shown);
        target->target.size = connection->size;
        target->target.grain = (uint32_t) max_u64(connection->minimum, TARGET_GRAIN);
        target->target.connections_max = connection->multi ? CONNECTIONS_MAX : 1;
        return target->target.shown ? 0 : fail_oom(reterr);
}

static int nbd_open(const TargetRequest *request, DiskTarget **ret, Reason *reterr) {
        NbdTarget *target;
        int rc;

        if (strcmp(request->format, "raw") != 0)
                return fail(reterr, -EINVAL, "an NBD server is written to raw, not as %s", request->format);
        target = calloc(1, sizeof *target);
        if (!target)
                return fail_oom(reterr);
        target->target.ops = &target_nbd_ops;
        target->target.in_place = true;
        target->target.cancel = request->cancel;
        rc = prepare(target, request, reterr);
        if (rc < 0) {
                disk_target_close(&target->target, false);
                return rc;
        }
        *ret = &target->target;
        return 0;
}

static int nbd_connect(DiskTarget *base, void **ret, Reason *reterr) {
        NbdTarget *target = (NbdTarget *) base;
        NbdConnection *connection = atomic_exchange(&target->first, NULL);
        int rc = connection ? 0 : open_connection(target, ANOTHER_MS, &connection, reterr);

        if (rc < 0)
                return rc;
        if (connection->size != base->size) {
                nbd_writer_free(connection);
                return fail(reterr, -ESTALE, "%s has another size than it had", base->shown);
        }
        *ret = connection;
        return 0;
}

static void nbd_disconnect(DiskTarget *base, void *connection) {
        (void) base;
        nbd_writer_free(connection);
}

static int within(const DiskTarget *base, int rc, Reason *reterr) {
        return rc < 0 && rc != -EOPNOTSUPP ? fail_within(reterr, rc, "%s", base->shown) : rc;
}

static int nbd_write(DiskTarget *base, void *connection, const void *buffer, size_t length, uint64_t offset,
                     Reason *reterr) {
        return within(base, nbd_connection_write(connection, buffer, length, offset, reterr), reterr);
}

static int nbd_zero(DiskTarget *base, void *connection, uint64_t length, uint64_t offset, Reason *reterr) {
        return within(base, nbd_writer_zero(connection, length, offset, reterr), reterr);
}

static int nbd_read(DiskTarget *base, void *connection, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        return within(base, nbd_connection_read(connection, buffer, length, offset, reterr), reterr);
}

static uint64_t nbd_zeroes(DiskTarget *base, void *connection, uint64_t length, uint64_t offset) {
        (void) base;
        return nbd_writer_zeroes(connection, length, offset);
}

static int nbd_sync(DiskTarget *base, void *connection, Reason *reterr) {
        return within(base, nbd_writer_flush(connection, reterr), reterr);
}

const TargetOps target_nbd_ops = {
        .name = "nbd",
        .claims = nbd_claims,
        .open = nbd_open,
        .connect = nbd_connect,
        .disconnect = nbd_disconnect,
        .write = nbd_write,
        .zero = nbd_zero,
        .read = nbd_read,
        .zeroes = nbd_zeroes,
        .sync = nbd_sync,
        .close = nbd_target_close,
};
