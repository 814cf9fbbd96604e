/* core/restore/nbd-writer.h - a connection to an NBD server that is written to: for targets behind such.
 *
 * The functions have the form that a table of targets wants, with the connection in the place of its target's.
 * Threads: belongs to one at a time. */
#pragma once

#include "sources/nbd-connection.h"
#include "util/cleanup.h"

/* -EROFS: the server takes no writes. cancel may be NULL. */
int nbd_writer_open(const NbdAddress *address, const atomic_bool *cancel, NbdConnection **ret, Reason *reterr);
NbdConnection *nbd_writer_free(NbdConnection *connection); /* always NULL */
DEFINE_CLEANUP(NbdConnection, nbd_writer_free)

/* -EOPNOTSUPP: the server cannot. */
int nbd_writer_zero(NbdConnection *connection, uint64_t length, uint64_t offset, Reason *reterr);
/* How many bytes from offset on read as zeroes, as the server says, up to length: 0 where it does not. */
uint64_t nbd_writer_zeroes(NbdConnection *connection, uint64_t length, uint64_t offset);
/* What has been written, over any connection where the server allows several, is on stable storage. */
int nbd_writer_flush(NbdConnection *connection, Reason *reterr);
