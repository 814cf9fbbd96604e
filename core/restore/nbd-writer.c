#include "restore/nbd-writer.h"

#include <errno.h>
#include <string.h>

#include "libraries/libnbd-functions.h"
#include "util/bytes.h"

#define STATUS_MAX (UINT64_C(1) << 30) /* bytes of one request */
#define ZERO_MAX (UINT64_C(64) << 20) /* bytes of one request: some servers write them one by one */

NbdConnection *nbd_writer_free(NbdConnection *connection) {
        if (connection)
                nbd_connection_clear(connection);
        free(connection);
        return NULL;
}

int nbd_writer_open(const NbdAddress *address, const atomic_bool *cancel, NbdConnection **ret, Reason *reterr) {
        CLEANUP(nbd_writer_freep) NbdConnection *connection = calloc(1, sizeof *connection);
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

void nbd_writer_disconnect(DiskTarget *target, void *connection) {
        (void) target;
        nbd_writer_free(connection);
}

/* What went wrong is told with the name of what was written to. */
static int within(const DiskTarget *target, int rc, Reason *reterr) {
        return rc < 0 && rc != -EOPNOTSUPP ? fail_within(reterr, rc, "%s", target->unfinished ?: target->shown) : rc;
}

int nbd_writer_write(DiskTarget *target, void *connection, const void *buffer, size_t length, uint64_t offset,
                     Reason *reterr) {
        return within(target, nbd_connection_write(connection, buffer, length, offset, reterr), reterr);
}

int nbd_writer_read(DiskTarget *target, void *connection, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        return within(target, nbd_connection_read(connection, buffer, length, offset, reterr), reterr);
}

int nbd_writer_zero(DiskTarget *target, void *data, uint64_t length, uint64_t offset, Reason *reterr) {
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

uint64_t nbd_writer_zeroes(DiskTarget *target, void *data, uint64_t length, uint64_t offset) {
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

int nbd_writer_sync(DiskTarget *target, void *data, Reason *reterr) {
        NbdConnection *connection = data;

        if (!connection->nbd)
                return within(target, nbd_connection_lost(reterr), reterr);
        if (nbd_can_flush(connection->nbd) <= 0)
                return 0;
        return within(target, nbd_connection_finish(connection, nbd_aio_flush(connection->nbd, NBD_NULL_COMPLETION, 0),
                                                    "cannot flush", reterr), reterr);
}
