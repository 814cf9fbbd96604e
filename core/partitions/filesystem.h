/* core/partitions/filesystem.h - which file system, or what else, a partition holds: as libblkid tells it.
 * Threads: any. */
#pragma once

#include "partitions/sketch.h"

typedef struct Filesystem {
        char *type;  /* "ext4", "LVM2_member", "crypto_LUKS", "swap", … as blkid(8) names them; NULL: nothing is known */
        char *label; /* NULL: none, as the UUID */
        char *uuid;
} Filesystem;

/* Of [start, start + size), which lies within the disk. That nothing is found is no failure. *ret_trouble: what could not be
 * looked at, or is of several kinds at once; the caller frees it; NULL: nothing. -ENOMEM. */
int filesystem_identify(const DiskBytes *disk, uint64_t start, uint64_t size, Filesystem *ret, char **ret_trouble,
                        Reason *reterr);
void filesystem_clear(Filesystem *filesystem);
