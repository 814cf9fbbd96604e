/* core/sources/qmp-uri.h - URIs of a QEMU that is managed without libvirt.
 *
 * qmp:///PATH                 its monitor (QMP) at a Unix socket, on this machine
 * qmp+tcp://HOST:PORT         its monitor on another one; nbd-address and scratch must be said
 * …?nbd-address=HOST:PORT     where QEMU's NBD server is to listen, and is connected to, by TCP
 * …?nbd-socket=PATH           the same by a Unix socket. With one of the two, a server that listens there already is shared
 * …?scratch=DIR               a directory for scratch files that QEMU can write to, on its machine
 * …?agent=PATH                the Unix socket of the guest agent's channel, on this machine */
#pragma once

#include <stdbool.h>

#include "util/reason.h"

typedef struct QmpUri {
        char *path;       /* of the monitor's socket; NULL: by TCP */
        char *host;
        unsigned port;
        char *nbd_socket;
        char *nbd_host;
        unsigned nbd_port;
        char *scratch;    /* always there by TCP, and never otherwise */
        char *agent;
} QmpUri;
void qmp_uri_clear(QmpUri *uri);

/* qmp: and qmp+tcp: */
bool qmp_uri_claims(const char *text);
/* -EINVAL */
int qmp_uri_parse(const char *text, QmpUri *ret, Reason *reterr);
