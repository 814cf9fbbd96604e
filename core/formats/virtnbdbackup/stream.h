/* core/formats/virtnbdbackup/stream.h - a stream as a layer.
 *
 * Opening reads its two ends; all else is read when it is needed. */
#pragma once

#include "formats/layer.h"

/* Takes bytes. */
int stream_open(LayerStore *store, ByteStore *bytes, Layer **ret, Reason *reterr);
