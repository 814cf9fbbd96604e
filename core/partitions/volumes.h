/* core/partitions/volumes.h - the logical volumes that begin on a disk of a point, and may go on on its others.
 * Threads: any. */
#pragma once

#include "partitions/lvm-member.h"
#include "partitions/partition-table.h"
#include "repository/vm.h"

/* The physical volumes that are on a disk, or all of it. What is damaged is told with the table, and no failure. -ENOMEM. */
int volumes_gather(const DiskBytes *disk, size_t disk_number, PartitionTable *table, LvmMembers *members, Reason *reterr);

/* Adds the volumes to the disk's table. What is damaged is told, and no failure. */
int volumes_add(Vm *vm, const char *point, const char *disk, Chain *chain, PartitionTable *table, Reason *reterr);

/* A volume, which is readable. */
int volume_open(Vm *vm, const char *point, const Partition *volume, ChainView **ret, Reason *reterr);
