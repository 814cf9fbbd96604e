/* core/sources/nbd-reader.h - one disk behind an NBD server, by libnbd. For every source that ends in NBD. */
#pragma once

#include "sources/nbd-connection.h"
#include "sources/source.h"

/* -ENODATA where the server does not have the bitmap; -ENOTSUP where it does not tell the depth. Of one that does not tell
 * what is zero (base:allocation, structured replies) all is data.
 * Waits end with -ETIMEDOUT when the server says nothing for so long, and with -ECANCELED. */
int nbd_reader_open(const NbdAddress *address, const atomic_bool *cancel, SourceReader **ret, Reason *reterr);
