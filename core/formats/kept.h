/* core/formats/kept.h - a file that a capture keeps with its point (domain.xml, …), read as a layer without holes.
 *
 * It is read whole when it is opened and checked against its seal, the checksum() of its content. */
#pragma once

#include "formats/layer.h"

#define KEPT_LENGTH_MAX (256u << 20) /* bytes; firmware variables take up to 64 MiB */

int kept_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr);
