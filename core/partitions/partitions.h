/* core/partitions/partitions.h - the partitions of a disk at a restore point, and the logical volumes that begin there.
 *
 * Found when they are first asked for, and kept in the repository's cache beside the chain: points do not change.
 * Threads: any. */
#pragma once

#include <jansson.h>

#include "partitions/partition-table.h"
#include "repository/vm.h"

/* The caller owns a reference. A broken or missing table is no failure; see PartitionTable. */
int partitions_find(Vm *vm, const char *point, const char *disk, PartitionTable **ret, Reason *reterr);

/* "vda1", "nvme0n1p1": as Linux would call it; "vda2.VG-LV": a logical volume on that. Returns the length that the whole
 * name has, as snprintf(3). */
int partition_name(const char *disk, const Partition *partition, char *ret, size_t size);

/* Adds to a disk's object what is known: "partitions", and where they are not NULL "table", "table_id", "table_reason",
 * "sector_size", and "filesystem", "label", "uuid" of a disk without a table. -ENOMEM. */
int partitions_describe(const char *disk, const PartitionTable *table, json_t *object);
