/* core/sources/imageio-extents.h - the list of extents that an imageio server answers with, taken as it arrives.
 *
 * [{"start": 0, "length": 65536, "zero": false, …}, …]: one flag of each entry is of interest. Entries are sorted, from 0
 * on and without gaps; anything else is refused. Of a list of any length no more is kept than where the flag changes, 8
 * bytes for each, up to a limit: all that comes behind it has the flag that is safe to assume.
 * Threads: a finished list is immutable and shared freely; an unfinished one belongs to one thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"
#include "util/reason.h"

typedef struct ImageioExtents ImageioExtents;

/* flag: "zero" or "dirty", borrowed for good. safe: the value that costs time but no truth. changes_max: of the flag, at
 * least 1. */
int imageio_extents_new(const char *flag, bool safe, size_t changes_max, ImageioExtents **ret);
ImageioExtents *imageio_extents_free(ImageioExtents *list); /* always NULL */
DEFINE_CLEANUP(ImageioExtents, imageio_extents_free)

/* The next bytes of the text. -EPROTO where it is not what it should be. */
int imageio_extents_take(ImageioExtents *list, const char *bytes, size_t length, Reason *reterr);
/* The text is over: -EPROTO where it should not be. */
int imageio_extents_finish(ImageioExtents *list, Reason *reterr);

/* Where the last one ends. */
uint64_t imageio_extents_end(const ImageioExtents *list);

/* The flag of the byte at offset, which is before the end; *ret_end: up to where it is the same. O(log n). */
bool imageio_extents_at(const ImageioExtents *list, uint64_t offset, uint64_t *ret_end);
