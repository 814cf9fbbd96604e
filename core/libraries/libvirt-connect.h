/* core/libraries/libvirt-connect.h - connections to libvirt, and its errors as ours: what all that speak to it share. */
#pragma once

#include "libraries/libvirt-functions.h"

static inline void libvirt_domain_freep(virDomainPtr *domain) {
        if (*domain)
                virDomainFree(*domain);
}

/* Of this thread's last failure: its words, and its code as ours where it has one, or else the given one.
 * -ENOTCONN: libvirtd is gone, and may come back; -EBUSY: another operation has the domain; -ESTALE: a checkpoint is
 * missing or inconsistent. */
const char *libvirt_words(void);
int libvirt_code(int otherwise);
int fail_libvirt(Reason *reterr, int otherwise, const char *what);

/* A thread that nobody waits for, and that no signal is for. */
int libvirt_start_thread(void *(*run)(void *context), void *context);

/* Loads libvirt and connects; a libvirtd that hangs is noticed. shown: the URI as messages may have it. */
int libvirt_open_connection(const char *uri, const char *shown, virConnectPtr *ret, Reason *reterr);
