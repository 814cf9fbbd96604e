/* core/partitions/lvm.h - the logical volumes of LVM, as the metadata of their physical volumes tells them.
 *
 * Nothing is activated: a volume is a list of ranges of the disks, linear or striped, and those can be read. Others
 * (mirrors, RAID, thin, snapshots, caches) are known by name, and it is said why they are not read.
 * Of what several physical volumes say of their group the newest counts.
 * Threads: any. */
#pragma once

#include "chain/chain-view.h"
#include "partitions/lvm-member.h"

#define LVM_VOLUMES_MAX 128

typedef struct LvmVolume {
        char *name;        /* "VG-LV" */
        char *trouble;     /* why it cannot be read; or NULL */
        uint64_t size;     /* bytes; 0 where it cannot be read, as is the rest */
        ViewPiece *pieces; /* their disks are the members' */
        size_t piece_count;
} LvmVolume;

typedef struct LvmVolumes {
        LvmVolume *items;
        size_t count;
} LvmVolumes;

/* The volumes that begin on one of the members. Those of which no member has the beginning are told with the first that has
 * any of it, or else with the first of the group. -EBADMSG where the metadata is damaged. */
int lvm_volumes_find(const LvmMembers *members, size_t own, LvmVolumes *ret, Reason *reterr);
void lvm_volumes_clear(LvmVolumes *volumes);
