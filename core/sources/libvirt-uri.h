/* core/sources/libvirt-uri.h - libvirt's URIs with our parameters. Needs no libvirt, which gets the URI without them.
 *
 * qemu:///system?domain=NAME              which domain is meant where it is not named as the VM
 * qemu+ssh://HOST/system?nbd-address=HOST[:PORT]
 *                                         where the disks of a VM on another host are read from. Not said: the URI's own
 *                                         host, and a free port from 10809 on. With it no host counts as this machine
 * …&nbd-tls=yes|no|auto                   whether that is encrypted and the host verified (auto: where both sides can)
 * …&nbd-certificates=DIR                  ca-cert.pem, and client-cert.pem with client-key.pem where the host wants them */
#pragma once

#include <stdbool.h>

#include "util/reason.h"

typedef enum NbdTls {
        NBD_TLS_AUTO,
        NBD_TLS_YES,
        NBD_TLS_NO,
} NbdTls;

typedef struct LibvirtUri {
        char *uri;      /* for libvirt */
        char *shown;    /* the same for people: without passwords */
        char *domain;   /* NULL: not said */
        bool local;     /* the hypervisor is on this machine */
        bool session;   /* its VMs run as the user that asks */
        char *nbd_host; /* NULL where it is local; an IPv6 address without its brackets */
        unsigned nbd_port; /* 0: not said */
        NbdTls nbd_tls;
        char *nbd_certificates; /* or NULL */
} LibvirtUri;
void libvirt_uri_clear(LibvirtUri *uri);

/* qemu:, qemu+TRANSPORT:, test: */
bool libvirt_uri_claims(const char *text);
/* -EINVAL */
int libvirt_uri_parse(const char *text, LibvirtUri *ret, Reason *reterr);
