/* core/sources/nbd-reader.h - one disk behind an NBD server, by libnbd. For every source that ends in NBD. */
#pragma once

#include "sources/source.h"

typedef struct NbdAddress {
        const char *socket_path; /* of a Unix socket; NULL: by TCP */
        const char *host;        /* name or address */
        unsigned port;
        bool tls;                /* encrypted, and the server's certificate must be good for host; of one behind a Unix
                                    socket libnbd verifies none */
        bool unverified;         /* whoever the server is */
        const char *certificates; /* directory of ca-cert.pem and what else TLS needs; NULL: as libnbd finds it */
        const char *psk_file;    /* both sides know its key, and so each other: instead of certificates; or NULL */
        const char *user;        /* whose key; or NULL: as libnbd has it */
        const char *export_name;
        const char *bitmap;      /* the whole meta context, "qemu:dirty-bitmap:…"; NULL: everything is dirty */
        bool ignore_zero;        /* it is not asked what is zero: all counts as data */
        unsigned top_depth;      /* asks which image of the chain has what (qemu:allocation-depth): what lies deeper than this
                                    is below; 0: it is not asked */
        unsigned patience_ms;    /* how long the server may say nothing; 0: a minute */
        unsigned connect_ms;     /* the same until it is connected, where that is less; 0: no less */
} NbdAddress;

/* -ENODATA where the server does not have the bitmap; -ENOTSUP where it does not tell the depth. Of one that does not tell what
 * is zero (base:allocation, structured replies) all is data.
 * Waits end with -ETIMEDOUT when the server says nothing for so long, and with -ECANCELED. */
int nbd_reader_open(const NbdAddress *address, const atomic_bool *cancel, SourceReader **ret, Reason *reterr);

/* Whether there is a certificate of an authority by which a server could be verified. directory: as in NbdAddress. */
bool nbd_has_certificates(const char *directory);
