/* core/sources/nbd-connection.h - a connection to an NBD server, by libnbd, and requests on it. For all who read and write.
 *
 * Every wait ends: when the server says nothing for so long (-ETIMEDOUT), and with the cancel flag (-ECANCELED). After an
 * error that the server did not answer with the connection is of no use: it is closed, so that nothing is still written into
 * buffers, and nbd is NULL from then on.
 * Threads: belongs to one at a time. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/reason.h"

#define NBD_TRANSFER_MAX (2u << 20) /* bytes that are in flight together */

struct nbd_handle;

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
        unsigned top_depth;      /* asks which image of the chain has what (qemu:allocation-depth): what lies deeper than
                                    this is below; 0: it is not asked */
        unsigned patience_ms;    /* how long the server may say nothing; 0: a minute */
        unsigned connect_ms;     /* the same until it is connected, where that is less; 0: no less */
} NbdAddress;

typedef struct NbdConnection {
        struct nbd_handle *nbd;
        const atomic_bool *cancel;
        unsigned patience_ms;
        uint64_t size;             /* bytes of the export */
        uint64_t minimum, maximum; /* of a request, bytes; minimum is a power of two */
        bool multi;                /* what one connection has written, and any has flushed, all others see */
} NbdConnection;

/* Ready to be connected: meta contexts may be asked for now. cancel may be NULL. */
int nbd_connection_prepare(const NbdAddress *address, const atomic_bool *cancel, NbdConnection *ret, Reason *reterr);
int nbd_connection_connect(NbdConnection *connection, const NbdAddress *address, Reason *reterr);
void nbd_connection_clear(NbdConnection *connection);

/* Waits for the answer to the request of this cookie (negative: it was not even sent). what: "cannot read". */
int nbd_connection_finish(NbdConnection *connection, int64_t cookie, const char *what, Reason *reterr);

/* Bytes that lie as the server wants them: in several requests that are in flight together. */
int nbd_connection_read(NbdConnection *connection, void *buffer, uint64_t length, uint64_t offset, Reason *reterr);
int nbd_connection_write(NbdConnection *connection, const void *buffer, uint64_t length, uint64_t offset, Reason *reterr);

/* The reason of a connection that is gone already. */
int nbd_connection_lost(Reason *reterr);

/* Why libnbd's last call failed: its words without its function's name, and the error code. */
const char *nbd_words(void);
int nbd_code(int otherwise);

/* Whether there is a certificate of an authority by which a server could be verified. directory: as in NbdAddress. */
bool nbd_has_certificates(const char *directory);
