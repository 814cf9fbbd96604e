/* core/capture/comparison.h - reads what was stored again, from the source and from the layer. */
#pragma once

#include "capture/readers.h"
#include "formats/layer.h"

/* 0 where all that the layer holds is what the source has; what it could not deliver is passed over. -EBADMSG: a difference,
 * and the reason says where. */
int comparison_run(Readers *readers, Layer *layer, const Stop *stop, Reason *reterr);
