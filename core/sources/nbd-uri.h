/* core/sources/nbd-uri.h - NBD's URIs, with libnbd's parameters and ours. Needs no libnbd.
 *
 * nbd://HOST[:PORT]/EXPORT                  nbds://[USER@]HOST[:PORT]/EXPORT         nbds: with TLS
 * nbd+unix:///EXPORT?socket=PATH            nbds+unix://[USER@]/EXPORT?socket=PATH
 * Of libnbd, for TLS: tls-certificates=DIR, tls-psk-file=PATH, tls-verify-peer=false. Ours:
 * bitmap=NAME       changes are told since then: the context qemu:dirty-bitmap:NAME; a NAME with a colon is a whole context
 * checkpoint=NAME   a bitmap as well, which a later capture may start from; where it is not said, it is that of bitmap
 * image=ID          what stays the same as long as the disk is the same one; else its address is
 * timeout=SECONDS   how long the server may say nothing */
#pragma once

#include <stdbool.h>

#include "sources/disk-uri.h"
#include "sources/nbd-connection.h"
#include "util/reason.h"

typedef struct NbdUri {
        char *base;        /* the text before the "?" */
        char *shown;       /* server and export, for people: nothing in it is secret */
        bool tls, verify;  /* verify: the server's certificate is, or both sides know the key of psk_file */
        char *socket;      /* of a Unix socket, absolute; else NULL */
        char *host;        /* NULL with a socket */
        unsigned port;
        char *user;        /* for psk_file; or NULL */
        char *export_name; /* may be empty */
        char *certificates, *psk_file, *verify_peer; /* NULL: not said */
        DiskUriCommon common;
        char *bitmap_context, *checkpoint_context; /* those of common, whole; or NULL */
} NbdUri;
void nbd_uri_clear(NbdUri *uri);

bool nbd_uri_claims(const char *text);
/* Relative paths become absolute. -EINVAL. */
int nbd_uri_parse(const char *text, NbdUri *ret, Reason *reterr);
/* The text that says the same. The caller frees *ret. -ENOMEM. */
int nbd_uri_format(NbdUri *uri, char **ret);

/* The server and the export, and how to reach them; borrowed from the URI. */
NbdAddress nbd_uri_address(const NbdUri *uri);
