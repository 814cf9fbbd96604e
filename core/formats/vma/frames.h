/* core/formats/vma/frames.h - reads a zstd file of many frames in place.
 *
 * Where every frame tells how much it unpacks to, or a seek table at the end does (zstd's seekable format), any range can be
 * had by unpacking the frames that it lies in; these are kept in the store's memory. */
#pragma once

#include <stdatomic.h>

#include "formats/byte-store.h"
#include "util/cache.h"

#define FRAME_UNPACKED_MAX (16u << 20) /* bytes: of longer ones too much would be unpacked for a small read */

/* Borrows the packed store. -ENOTSUP: it is not such a file, and has to be unpacked from front to back. What goes over a
 * file without a seek table looks at each of its blocks; -ECANCELED. */
int frames_open(ByteStore *packed, Cache *memory, const atomic_bool *cancel, ByteStore **ret, Reason *reterr);
