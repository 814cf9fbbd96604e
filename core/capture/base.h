/* core/capture/base.h - what a capture that is not full starts from, and for each disk how it can.
 *
 * An incremental one starts from the newest visible point of this repository, never from the hypervisor's current
 * checkpoint, so that a capture that was lost leaves no gap; a differential one starts from the last full point before it.
 * Where no bitmap tells what changed since, a disk is compared: all of it is read, and what differs is stored. */
#pragma once

#include <stdbool.h>

#include "chain/chain.h"
#include "repository/manifest.h"
#include "sources/source.h"

typedef struct BaseDisk {
        Chain *chain;     /* the parent's; NULL: this disk is captured in full, and the reason says why */
        bool compared;    /* no bitmap tells what changed, and the reason says why */
        bool gaps;        /* the parent is known not to have all of it */
        uint64_t changed; /* bytes, once that is known: of a disk that is compared, after it was copied */
        Reason why;
} BaseDisk;

typedef struct Base {
        Manifest *manifest;      /* NULL: none can be used, and the reason says why */
        bool differential;
        Reason why;
        char *definition;        /* of its checkpoint, as kept with it; may be NULL */
        BaseDisk *disks;         /* for each disk of the SourceVm */
        size_t disk_count;
} Base;

#define BASE_CHECKPOINT_FILE "checkpoint.xml" /* where a point keeps the definition */

/* Looks for it. What is wrong with a point is no failure of this, but a reason in ret. newest: the newest point's name,
 * NULL where there is none. */
int base_choose(Vm *vm, const char *newest, bool differential, const SourceVm *source_vm, Base *ret, Reason *reterr);

/* No disk starts from it any more, for this reason. */
void base_give_up(Base *base, const Reason *why);
void base_give_up_disk(Base *base, size_t disk, const Reason *why);

/* The bitmaps are of no use, for this reason: disks that relied on them are compared. Or one disk's. */
void base_compare(Base *base, const Reason *why);
void base_compare_disk(Base *base, size_t disk, const Reason *why);

static inline bool base_disk_by_bitmap(const BaseDisk *disk) {
        return disk->chain && !disk->compared;
}

/* Why a disk is not captured by a bitmap, as the point keeps it and the user is told. */
void base_explain_disk(const Base *base, size_t disk, Reason *ret);

/* How many disks start from it, and how many of them by a bitmap. */
size_t base_disk_count(const Base *base);
size_t base_bitmap_count(const Base *base);

void base_clear(Base *base);
