/* core/sources/nbd-reader.h - one disk behind an NBD server, by libnbd. For every source that ends in NBD. */
#pragma once

#include "sources/source.h"

typedef struct NbdAddress {
        const char *socket_path; /* of a Unix socket */
        const char *export_name;
        const char *bitmap;      /* the whole meta context, "qemu:dirty-bitmap:…"; NULL: everything is dirty */
        unsigned patience_ms;    /* how long the server may say nothing; 0: a minute */
} NbdAddress;

/* -EPROTO where the server lacks what is needed: base:allocation, the bitmap's context, structured replies.
 * Waits end with -ETIMEDOUT when the server says nothing for a minute, and with -ECANCELED. */
int nbd_reader_open(const NbdAddress *address, const atomic_bool *cancel, SourceReader **ret, Reason *reterr);
