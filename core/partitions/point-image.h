/* core/partitions/point-image.h - what people name in a point: a disk (vda), or a partition of one (vda1).
 * Threads: any. */
#pragma once

#include "chain/chain-view.h"

/* The view owns the chain: point_image_close(). Disks come before partitions of the same name; -ENOENT where there is
 * neither. */
int point_image_open(Vm *vm, const char *point, const char *name, ChainView *ret, Reason *reterr);
void point_image_close(ChainView *view);
