/* core/formats/qcow2/layer-reader.h - opens layers that are qcow2 images: the active state, or an internal snapshot.
 *
 * Which one, and the size of the disk below it, member.h tells. The header is read on opening, tables when a range in them
 * is asked for; both they and clusters that are compressed are kept in the store's cache. Data is read straight into
 * the caller's buffer, as are compressed clusters that are wanted whole. */
#pragma once

#include "formats/layer.h"

int qcow2_layer_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr);
