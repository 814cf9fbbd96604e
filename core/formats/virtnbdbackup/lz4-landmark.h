/* core/formats/virtnbdbackup/lz4-landmark.h - a place in an LZ4 frame that is kept for long: with its dictionary packed, so
 * that those of a whole disk fit into the cache.
 *
 * Threads: a landmark is immutable. */
#pragma once

#include "formats/virtnbdbackup/lz4-blocks.h"

typedef struct Lz4Landmark Lz4Landmark;

/* The caller frees *ret, in one piece. */
int lz4_landmark_new(const Lz4Place *place, Lz4Landmark **ret, Reason *reterr);
size_t lz4_landmark_size(const Lz4Landmark *landmark); /* bytes of memory */
/* The place that it is. The caller frees *ret. -EIO: the landmark has been damaged. */
int lz4_landmark_place(const Lz4Landmark *landmark, Lz4Place **ret, Reason *reterr);
