/* core/formats/vma/vma.h - the archives of Proxmox VE: FILE.vma, FILE.vma.zst, FILE.vma.gz, FILE.vma.lzo.
 *
 * Each is a full point of one VM. A member of a location is "device N" or "config N", as they are numbered in the header.
 * Disks are named as the tool names devices, without the "drive-" in front: "scsi0" (and of a TPM without the "-backup"
 * behind). Kept are the configuration files under their names and, where there is one, "vmstate", the RAM. */
#pragma once

#include "formats/format.h"

extern const Format vma_format;

#define VMA_MEMBER_DEVICE "device "
#define VMA_MEMBER_CONFIG "config "

int vma_find(FoundDirectory *directory, Reason *reterr);
