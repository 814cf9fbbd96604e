/* core/sources/nbd-reader.h - one disk behind an NBD server, by libnbd. For every source that ends in NBD. */
#pragma once

#include "sources/source.h"

typedef struct NbdAddress {
        const char *socket_path; /* of a Unix socket; NULL: by TCP */
        const char *host;        /* name or address */
        unsigned port;
        bool tls;                /* encrypted, and the server's certificate must be good for host; by TCP alone */
        const char *certificates; /* directory of ca-cert.pem and what else TLS needs; NULL: as libnbd finds it */
        const char *export_name;
        const char *bitmap;      /* the whole meta context, "qemu:dirty-bitmap:…"; NULL: everything is dirty */
        bool ignore_zero;        /* it is not asked what is zero: all counts as data */
        unsigned top_depth;      /* asks which image of the chain has what (qemu:allocation-depth): what lies deeper than this
                                    is below; 0: it is not asked */
        unsigned patience_ms;    /* how long the server may say nothing; 0: a minute */
} NbdAddress;

/* -EPROTO where the server lacks what is asked for: base:allocation, the bitmap's context, structured replies; -ENOTSUP
 * where it does not tell the depth.
 * Waits end with -ETIMEDOUT when the server says nothing for a minute, and with -ECANCELED. */
int nbd_reader_open(const NbdAddress *address, const atomic_bool *cancel, SourceReader **ret, Reason *reterr);

/* Whether there is a certificate of an authority by which a server could be verified. directory: as in NbdAddress. */
bool nbd_has_certificates(const char *directory);
