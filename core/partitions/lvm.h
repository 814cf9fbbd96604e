/* core/partitions/lvm.h - the logical volumes of an LVM physical volume, as its own metadata tells them.
 *
 * Nothing is activated: a volume that lies in one piece on one physical volume is a range of the disk like a partition, and
 * only those can be read. libblkid tells that something is a physical volume; no library of Debian's can read what is in it.
 * Threads: any. */
#pragma once

#include "partitions/sketch.h"

#define LVM_VOLUMES_MAX 128

typedef struct LvmVolume {
        char *name;           /* "VG-LV" */
        uint64_t start, size; /* bytes, on the disk; 0: it is not in one piece there */
} LvmVolume;

typedef struct LvmVolumes {
        LvmVolume *items;
        size_t count;
} LvmVolumes;

/* Of the physical volume in [start, start + size) of the disk. -EBADMSG where its metadata is damaged. */
int lvm_read(const DiskBytes *disk, uint64_t start, uint64_t size, LvmVolumes *ret, Reason *reterr);
void lvm_clear(LvmVolumes *volumes);
