/* core/formats/native/layer-reader.h - opens native layers; what comes out is used through layer.h.
 *
 * Header and footer are read on opening, index pages when a range in them is asked for. Whole blocks are decompressed
 * straight into the caller's buffer. Of parts the block is kept in the store's cache, so that small reads beside each
 * other do not decompress it again; but the first small read in a block, which at random is the only one, decompresses no
 * more than it needs, and keeps nothing. */
#pragma once

#include "formats/layer.h"

int native_layer_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr);
