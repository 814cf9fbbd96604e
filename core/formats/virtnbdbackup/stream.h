/* core/formats/virtnbdbackup/stream.h - a stream as a layer.
 *
 * Opening reads its two ends; all else is read when it is needed. */
#pragma once

#include "formats/layer.h"

/* Takes bytes, also where it fails: those of the location. grown_from: see member.h. */
int stream_open(LayerStore *store, const LayerLocation *location, ByteStore *bytes, uint64_t grown_from, Layer **ret,
                Reason *reterr);
