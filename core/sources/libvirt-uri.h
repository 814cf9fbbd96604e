/* core/sources/libvirt-uri.h - libvirt's URIs with our parameter. Needs no libvirt.
 *
 * qemu:///system?domain=NAME: which domain is meant where it is not named as the VM. libvirt gets the URI without it. */
#pragma once

#include <stdbool.h>

#include "util/reason.h"

typedef struct LibvirtUri {
        char *uri;     /* for libvirt */
        char *shown;  /* the same for people: without passwords */
        char *domain;  /* NULL: not said */
        bool local;    /* the hypervisor is on this machine */
        bool session;  /* its VMs run as the user that asks */
} LibvirtUri;
void libvirt_uri_clear(LibvirtUri *uri);

/* qemu:, qemu+TRANSPORT:, test: */
bool libvirt_uri_claims(const char *text);
/* -EINVAL */
int libvirt_uri_parse(const char *text, LibvirtUri *ret, Reason *reterr);
