/* core/restore/nbd-writer.h - connections to an NBD server that is written to, for the kinds of targets behind such.
 *
 * What follows nbd_writer_open() is for their tables, with an NbdConnection as the connection. */
#pragma once

#include "restore/target.h"
#include "sources/nbd-connection.h"

/* -EROFS: the server takes no writes. cancel may be NULL. */
int nbd_writer_open(const NbdAddress *address, const atomic_bool *cancel, NbdConnection **ret, Reason *reterr);
NbdConnection *nbd_writer_free(NbdConnection *connection); /* always NULL */
DEFINE_CLEANUP(NbdConnection, nbd_writer_free)

void nbd_writer_disconnect(DiskTarget *target, void *connection);
int nbd_writer_write(DiskTarget *target, void *connection, const void *buffer, size_t length, uint64_t offset,
                     Reason *reterr);
int nbd_writer_zero(DiskTarget *target, void *connection, uint64_t length, uint64_t offset, Reason *reterr);
int nbd_writer_read(DiskTarget *target, void *connection, void *buffer, size_t length, uint64_t offset, Reason *reterr);
uint64_t nbd_writer_zeroes(DiskTarget *target, void *connection, uint64_t length, uint64_t offset);
int nbd_writer_sync(DiskTarget *target, void *connection, Reason *reterr);
