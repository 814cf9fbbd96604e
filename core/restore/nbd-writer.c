#include "restore/nbd-writer.h"

#include <errno.h>

#include "libraries/libnbd-functions.h"
#include "util/bytes.h"

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
        if (rc == 0)
                rc = nbd_connection_connect(connection, address, reterr);
        if (rc < 0)
                return rc;
        if (nbd_is_read_only(connection->nbd) != 0)
                return fail(reterr, -EROFS, "the NBD server lets nobody write to its export \"%s\"", address->export_name);
        *ret = STEAL_PTR(connection);
        return 0;
}

int nbd_writer_zero(NbdConnection *connection, uint64_t length, uint64_t offset, Reason *reterr) {
        int rc = 0;

        while (rc == 0 && length > 0) {
                uint64_t part = min_u64(length, ZERO_MAX);

                if (!connection->nbd)
                        return nbd_connection_lost(reterr);
                if (nbd_can_zero(connection->nbd) <= 0)
                        return -EOPNOTSUPP;
                rc = nbd_connection_finish(connection, nbd_aio_zero(connection->nbd, part, offset, NBD_NULL_COMPLETION, 0),
                                           "cannot write zeroes", reterr);
                offset += part;
                length -= part;
        }
        return rc;
}

int nbd_writer_flush(NbdConnection *connection, Reason *reterr) {
        if (!connection->nbd)
                return nbd_connection_lost(reterr);
        if (nbd_can_flush(connection->nbd) <= 0)
                return 0;
        return nbd_connection_finish(connection, nbd_aio_flush(connection->nbd, NBD_NULL_COMPLETION, 0), "cannot flush",
                                     reterr);
}
