/* core/partitions/disk-bytes.h - the bytes of something that is looked at: a disk, or a volume.
 * Threads: any. */
#pragma once

#include "chain/chain-view.h"

typedef struct DiskBytes {
        uint64_t size;
        int (*read)(void *context, void *buffer, size_t length, uint64_t offset, Reason *reterr);
        int (*is_zero)(void *context, uint64_t offset, size_t length); /* 1: yes; else it is read */
        void *context;
} DiskBytes;

/* Of what is borrowed. */
DiskBytes disk_bytes_of_chain(Chain *chain);
DiskBytes disk_bytes_of_view(ChainView *view);
