/* core/capture/base.h - what an incremental capture starts from: the newest visible point of this repository, never the
 * hypervisor's current checkpoint (DESIGN 5.6), and for each disk whether it can. */
#pragma once

#include <stdbool.h>

#include "chain/chain.h"
#include "repository/manifest.h"
#include "sources/source.h"

typedef struct BaseDisk {
        Chain *chain; /* the parent's; NULL: this disk is captured in full, and the reason says why */
        Reason why;
} BaseDisk;

typedef struct Base {
        Manifest *manifest;      /* NULL: none can be used, and the reason says why */
        Reason why;
        char *definition;        /* of its checkpoint, as kept with it; may be NULL */
        BaseDisk *disks;         /* for each disk of the SourceVm */
        size_t disk_count;
} Base;

#define BASE_CHECKPOINT_FILE "checkpoint.xml" /* where a point keeps the definition */

/* Looks for it. What is wrong with a point is no failure of this, but a reason in ret. newest: the newest point's name,
 * NULL where there is none. */
int base_choose(Vm *vm, const char *newest, const SourceVm *source_vm, Base *ret, Reason *reterr);

/* No disk starts from it any more, for this reason. */
void base_give_up(Base *base, const Reason *why);
void base_give_up_disk(Base *base, size_t disk, const Reason *why);

/* How many disks start from it. */
size_t base_disk_count(const Base *base);

void base_clear(Base *base);
