/* core/machine/hypervisor-private.h - what the files of a hypervisor share.
 *
 * hypervisor.c        the connection, and what the host can do
 * hypervisor-vm.c     a VM's life
 * hypervisor-disks.c  the disks of a VM that is there
 * hypervisor-pool.c   storage pools */
#pragma once

#include "libraries/libvirt-connect.h"
#include "machine/hypervisor.h"
#include "sources/libvirt-uri.h"

struct Hypervisor {
        LibvirtUri uri;
        virConnectPtr connection;
        bool has_kvm;
        uid_t uid;
        gid_t gid;
};

/* A libvirtd that was restarted meanwhile is connected to again. */
int hypervisor_connect_again(Hypervisor *hypervisor, Reason *reterr);
/* The VM of that UUID; -ENOENT where libvirt does not know it. The caller frees it. */
int hypervisor_find(Hypervisor *hypervisor, const char *uuid, virDomainPtr *ret, Reason *reterr);
