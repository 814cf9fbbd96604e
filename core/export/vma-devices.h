/* core/export/vma-devices.h - what Proxmox has to be told of a VM: names of devices, and a configuration. */
#pragma once

#include <stddef.h>

#include "repository/manifest.h"

#define VMA_DEVICE_NAME_MAX 270 /* "drive-", a disk's name, "-backup", NUL */

/* The device of a disk: "drive-" and where Proxmox plugs it in: "scsi0", which a disk that came from there is named; else
 * made of its bus in the definition, or of its name: vda is virtio0. domain: the definition's text; NULL: there is none. The
 * names are those of manifest->disks; the caller frees *ret. */
int vma_devices_name(const Manifest *manifest, const char *domain, char (**ret)[VMA_DEVICE_NAME_MAX], Reason *reterr);

/* The text of a qemu-server.conf: name, processors, memory, firmware, network cards, and the disks by those names. The
 * caller frees *ret. */
int vma_devices_config(const Manifest *manifest, const char *domain, const char (*names)[VMA_DEVICE_NAME_MAX], char **ret,
                       Reason *reterr);
