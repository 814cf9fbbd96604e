/* core/capture/comparison.h - reads a disk again, from the source and as the new point will show it: what was stored now
 * from its layer, the rest from the parent's chain. */
#pragma once

#include "capture/readers.h"
#include "chain/chain.h"
#include "formats/layer.h"

/* 0 where all is what the source has; what it could not deliver, or nobody has, is passed over. parent: NULL where there is
 * none. -EBADMSG: a difference, and the reason says where. */
int comparison_run(Readers *readers, Layer *layer, Chain *parent, const Stop *stop, Reason *reterr);
