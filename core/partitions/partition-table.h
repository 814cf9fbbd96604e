/* core/partitions/partition-table.h - the partitions of a disk, as libblkid finds them: GPT, MBR with logical partitions,
 * BSD disklabels within those, and the other tables that it knows.
 *
 * Numbers are the kernel's: what Linux would call vda5 has the number 5. The sector size of a disk stands nowhere on it: it
 * is 512 bytes, unless the table, or what its partitions hold, makes sense with 4096 only.
 * Threads: a table is immutable once made; references are counted atomically. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chain/chain-view.h"
#include "partitions/filesystem.h"
#include "partitions/sketch.h"
#include "util/strings.h"

#define PARTITIONS_MAX 252 /* in a table; the others are left out, and it says so */

/* Or a logical volume of LVM, which is a range of the disk as well, or pieces of it and of others. */
typedef struct Partition {
        unsigned number;      /* from 1 on; of a volume: that of the partition it is in, or 0 */
        char *volume;         /* "VG-LV"; NULL: a partition */
        uint64_t start, size; /* bytes; start: on the disk, of a volume in pieces that of its first one */
        ViewPiece *pieces;    /* of a volume that is not all of [start, start + size); or NULL */
        size_t piece_count;
        Strings disks;        /* of a volume: those that it is on, as the places count them; the first is the table's */
        bool readable;        /* it lies within the disk, and is no mere container of logical partitions */
        char *scheme;         /* "gpt", "dos", "bsd", "lvm": of the table that it stands in */
        char *type;           /* GPT: a UUID; else "0x83"; a volume has none */
        char *name;           /* GPT: the partition's own; or NULL */
        char *uuid;           /* of the partition, not of what it holds; or NULL */
        Filesystem filesystem;
        char *trouble;        /* why it is not readable, or not known what it holds; or NULL */
} Partition;

typedef struct PartitionTable {
        int references; /* atomic */
        char *scheme;   /* NULL: there is none */
        char *id;       /* the table's UUID or number; or NULL */
        unsigned sector_size;
        Partition *partitions; /* by number; volumes behind all others */
        size_t count;
        Filesystem filesystem; /* of the disk as a whole, where it has no table */
        char *trouble;         /* what is broken, or could not be looked at; or NULL */
        bool passing;          /* trouble that may be over next time */
} PartitionTable;

/* Without volumes: volumes_add() does that. That the disk has no table, or a broken one, is no failure. */
int partition_table_read(const DiskBytes *disk, PartitionTable **ret, Reason *reterr);
PartitionTable *partition_table_ref(PartitionTable *table);
PartitionTable *partition_table_unref(PartitionTable *table); /* always NULL */
DEFINE_CLEANUP(PartitionTable, partition_table_unref)

/* The first trouble is told; false: no memory. */
bool partition_set_trouble(char **trouble, const char *words);
