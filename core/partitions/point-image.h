/* core/partitions/point-image.h - what people name in a point: a disk (vda), or a partition of one (vda1).
 * Threads: any. */
#pragma once

#include "chain/chain-view.h"
#include "partitions/partitions.h"

/* Disks come before partitions of the same name; -ENOENT where there is neither. */
int point_image_open(Vm *vm, const char *point, const char *name, ChainView **ret, Reason *reterr);

/* A disk alone. */
int point_image_open_disk(Vm *vm, const char *point, const char *disk, ChainView **ret, Reason *reterr);

/* A partition, which is readable, of the disk. */
int point_image_open_partition(Vm *vm, const char *point, const char *disk, const Partition *partition, ChainView **ret,
                               Reason *reterr);

/* Bytes of the partition that are no hole. disk_allocated: the same of the disk. */
int point_image_allocated(Vm *vm, const char *point, const ManifestDisk *disk, const Partition *partition,
                          uint64_t disk_allocated, uint64_t *ret, Reason *reterr);
