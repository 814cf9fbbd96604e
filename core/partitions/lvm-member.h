/* core/partitions/lvm-member.h - physical volumes of LVM, and what they say of the group that they belong to.
 *
 * libblkid tells that something is a physical volume; what is in it stands in its own metadata, which is read here.
 * Threads: a member is immutable. */
#pragma once

#include <jansson.h>

#include "partitions/sketch.h"

#define LVM_ID_LENGTH 32

typedef struct LvmMember {
        char id[LVM_ID_LENGTH + 1];
        size_t disk;          /* which one it is on: a number of the caller's */
        unsigned number;      /* of the partition that it is, or 0: the whole disk */
        uint64_t start, size; /* bytes, on the disk */
        char *group;          /* name; NULL: it does not tell, as one of several need not, or is in none */
        json_t *metadata;     /* the group's; or NULL */
} LvmMember;

typedef struct LvmMembers {
        LvmMember *items;
        size_t count;
} LvmMembers;

#define LVM_MEMBERS_MAX 512 /* what is more is as if it were not there */

/* Adds the physical volume in [start, start + size) of the disk. -EBADMSG where its metadata is damaged. */
int lvm_members_add(LvmMembers *members, const DiskBytes *disk, size_t disk_number, unsigned number, uint64_t start,
                    uint64_t size, Reason *reterr);
/* Adds those of another list, which share their metadata, with another number for their disk. -ENOMEM. */
int lvm_members_join(LvmMembers *members, const LvmMembers *others, size_t disk_number);
void lvm_members_clear(LvmMembers *members);
