/* core/capture/parent.h - what the parent point has of a disk, as planning and comparing need it. Threads: any. */
#pragma once

#include "capture/plan.h"
#include "chain/chain.h"

/* The extents of [start, end) as far as the parent goes; in place of what was in ret. */
int parent_extents_load(Chain *parent, uint64_t start, uint64_t end, ParentExtents *ret);

/* As PlanParent wants it; context: the chain. What cannot be read is not zero. */
bool parent_is_zero(void *context, uint64_t start, uint64_t length);

/* Whether it has these bytes there. What it cannot deliver it does not have. scratch: room for as many. */
bool parent_has(Chain *parent, uint64_t start, const void *bytes, uint64_t length, void *scratch);

/* How much of a range is data there. */
int parent_count_data(Chain *parent, uint64_t start, uint64_t length, uint64_t *ret);
