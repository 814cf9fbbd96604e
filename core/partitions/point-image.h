/* core/partitions/point-image.h - what people name in a point: a disk (vda), or a partition of one (vda1).
 * Threads: any. */
#pragma once

#include "chain/chain-view.h"

/* The view owns the chain: point_image_close(). -ENOENT where there is neither a disk nor a partition of that name; disks come first. */
int point_image_open(Vm *vm, const char *point, const char *name, ChainView *ret, Reason *reterr);
void point_image_close(ChainView *view);
