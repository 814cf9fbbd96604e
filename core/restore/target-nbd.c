/* core/restore/target-nbd.c - an export of an NBD server. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "libraries/libnbd-functions.h"
#include "restore/target-kinds.h"
#include "sources/nbd-connection.h"
#include "sources/nbd-uri.h"
#include "util/bytes.h"

#define CONNECTIONS_MAX 4
#define STATUS_MAX (UINT64_C(1) << 30) /* bytes of one request */
#define ZERO_MAX (UINT64_C(64) << 20)  /* bytes of one request: some servers write them one by one */
#define ANOTHER_MS 1000 /* how long a server may take to answer beside a connection that is there */

typedef struct NbdTarget {
        DiskTarget target;
        NbdUri uri;
        _Atomic(NbdConnection *) first; /* by which it was looked at; NULL once it is in use */
} NbdTarget;

static bool nbd_claims(const TargetRequest *request) {
        return nbd_uri_claims(request->name);
}

static NbdConnection *connection_free(NbdConnection *connection) {
        if (connection)
                nbd_connection_clear(connection);
        free(connection);
        return NULL;
}
DEFINE_CLEANUP(NbdConnection, connection_free)

/* -EROFS: the server takes no writes. */
static int open_writer(const NbdAddress *address, const atomic_bool *cancel, NbdConnection **ret, Reason *reterr) {
        CLEANUP(connection_freep) NbdConnection *connection = calloc(1, sizeof *connection);
        int rc;

        if (!connection)
                return fail_oom(reterr);
        rc = nbd_connection_prepare(address, cancel, connection, reterr);
        if (rc == 0 && nbd_add_meta_context(connection->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0)
                rc = fail(reterr, nbd_code(-EINVAL), "cannot set up the NBD connection: %s", nbd_words());
        if (rc == 0)
                rc = nbd_connection_connect(connection, address, reterr);
        if (rc < 0)
                return rc;
        if (nbd_is_read_only(connection->nbd) != 0)
                return fail(reterr, -EROFS, "the NBD server lets nobody write to its export \"%s\"", address->export_name);
        *ret = STEAL_PTR(connection);
        return 0;
}

static void nbd_target_close(DiskTarget *base, bool keep) {
        NbdTarget *target = (NbdTarget *) base;

        (void) keep;
        connection_free(target->first);
        nbd_uri_clear(&target->uri);
        free(target);
}

static int open_connection(const NbdTarget *target, unsigned connect_ms, NbdConnection **ret, Reason *reterr) {
        NbdAddress address = nbd_uri_address(&target->uri);

        address.connect_ms = connect_ms;
        return open_writer(&address, target->target.cancel, ret, reterr);
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
                connection_free(connection);
                return fail(reterr, -ESTALE, "%s has another size than it had", base->shown);
        }
        *ret = connection;
        return 0;
}

static void nbd_target_disconnect(DiskTarget *target, void *connection) {
        (void) target;
        connection_free(connection);
}

/* What went wrong is told with the name of what was written to. */
static int within(const DiskTarget *target, int rc, Reason *reterr) {
        return rc < 0 && rc != -EOPNOTSUPP ? fail_within(reterr, rc, "%s", target->unfinished ?: target->shown) : rc;
}

static int nbd_target_write(DiskTarget *target, void *connection, const void *buffer, size_t length, uint64_t offset,
                     Reason *reterr) {
        return within(target, nbd_connection_write(connection, buffer, length, offset, reterr), reterr);
}

static int nbd_target_read(DiskTarget *target, void *connection, void *buffer, size_t length, uint64_t offset,
                           Reason *reterr) {
        return within(target, nbd_connection_read(connection, buffer, length, offset, reterr), reterr);
}

static int nbd_target_zero(DiskTarget *target, void *data, uint64_t length, uint64_t offset, Reason *reterr) {
        NbdConnection *connection = data;
        int rc = 0;

        while (rc == 0 && length > 0) {
                uint64_t part = min_u64(length, ZERO_MAX);
                int64_t cookie;

                if (!connection->nbd)
                        return within(target, nbd_connection_lost(reterr), reterr);
                if (nbd_can_zero(connection->nbd) <= 0)
                        return -EOPNOTSUPP;
                cookie = nbd_aio_zero(connection->nbd, part, offset, NBD_NULL_COMPLETION, 0);
                rc = nbd_connection_finish(connection, cookie, "cannot write zeroes", reterr);
                offset += part;
                length -= part;
        }
        return within(target, rc, reterr);
}

/* The first extents of an answer, as far as they are zeroes. */
static int take_zeroes(void *data, const char *context, uint64_t offset, uint32_t *entries, size_t words, int *error) {
        uint64_t *known = data;

        (void) offset;
        (void) error;
        if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) != 0)
                return 0;
        *known = 0;
        for (size_t i = 0; i + 1 < words && (entries[i + 1] & LIBNBD_STATE_ZERO); i += 2)
                *known += entries[i];
        return 0;
}

static uint64_t nbd_target_zeroes(DiskTarget *target, void *data, uint64_t length, uint64_t offset) {
        NbdConnection *connection = data;
        uint64_t known = 0;
        int64_t cookie;

        (void) target;
        if (!connection->nbd || nbd_can_meta_context(connection->nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) <= 0)
                return 0;
        cookie = nbd_aio_block_status(connection->nbd, min_u64(length, STATUS_MAX), offset,
                                      (nbd_extent_callback) { .callback = take_zeroes, .user_data = &known },
                                      NBD_NULL_COMPLETION, 0);
        return nbd_connection_finish(connection, cookie, "cannot get extents", NULL) < 0 ? 0 : known;
}

static int nbd_target_sync(DiskTarget *target, void *data, Reason *reterr) {
        NbdConnection *connection = data;

        if (!connection->nbd)
                return within(target, nbd_connection_lost(reterr), reterr);
        if (nbd_can_flush(connection->nbd) <= 0)
                return 0;
        return within(target, nbd_connection_finish(connection, nbd_aio_flush(connection->nbd, NBD_NULL_COMPLETION, 0),
                                                    "cannot flush", reterr), reterr);
}

const TargetOps target_nbd_ops = {
        .name = "nbd",
        .raw_only = "an NBD server",
        .size = sizeof(NbdTarget),
        .claims = nbd_claims,
        .open = nbd_open,
        .connect = nbd_connect,
        .disconnect = nbd_target_disconnect,
        .write = nbd_target_write,
        .zero = nbd_target_zero,
        .read = nbd_target_read,
        .zeroes = nbd_target_zeroes,
        .sync = nbd_target_sync,
        .close = nbd_target_close,
};
