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

static int nbd_open(DiskTarget *base, const TargetRequest *request, Reason *reterr) {
        NbdTarget *target = (NbdTarget *) base;
        NbdConnection *connection;
        int rc;

        base->in_place = true;
        rc = nbd_uri_parse(request->name, &target->uri, reterr);
        if (rc == 0)
                rc = disk_uri_refuse_captured(&target->uri.common, target->uri.shown, reterr);
        if (rc < 0)
                return rc;
        if (target->uri.tls && !target->uri.verify && request->tell)
                request->tell(request->context, "whose certificate the NBD server has is not verified");
        rc = open_connection(target, 0, &connection, reterr);
        if (rc < 0)
                return rc;
        target->first = connection;
        base->shown = strdup(target->uri.shown);
        base->size = connection->size;
        base->grain = (uint32_t) max_u64(connection->minimum, TARGET_GRAIN);
        base->connections_max = connection->multi ? CONNECTIONS_MAX : 1;
        return base->shown ? 0 : fail_oom(reterr);
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

const TargetOps target_nbd_ops = {
        .name = "nbd",
        .raw_only = "an NBD server",
        .size = sizeof(NbdTarget),
        .claims = nbd_claims,
        .open = nbd_open,
        .connect = nbd_connect,
        .disconnect = nbd_writer_disconnect,
        .write = nbd_writer_write,
        .zero = nbd_writer_zero,
        .read = nbd_writer_read,
        .zeroes = nbd_writer_zeroes,
        .sync = nbd_writer_sync,
        .close = nbd_target_close,
};
