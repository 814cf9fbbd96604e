/* core/extent/extent-map.h - which bytes of a disk are in which state.
 *
 * Invariant: extents are sorted, non-empty, do not overlap, neighbours in the same state are merged, and all
 * end at or before the disk's size. extent_map_finish() is the only place that establishes this; all else
 * relies on it.
 * Threads: a finished map is immutable and shared freely; an unfinished one belongs to one thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"
#include "util/reason.h"

typedef enum ExtentState {
        EXTENT_DATA,       /* bytes are stored here */
        EXTENT_ZERO,       /* reads as zeroes */
        EXTENT_UNREADABLE, /* the source could not deliver it: reading is an error */
        /* what is in no extent is absent: ask the parent */
} ExtentState;

typedef struct Extent {
        uint64_t start;  /* byte offset on the disk */
        uint64_t length; /* bytes, never 0 in a finished map */
        ExtentState state;
} Extent;

typedef struct ExtentMap ExtentMap;

int extent_map_new(uint64_t disk_size, ExtentMap **ret);
ExtentMap *extent_map_free(ExtentMap *map); /* always NULL */
DEFINE_CLEANUP(ExtentMap, extent_map_free)

/* Adds a range, in any order. length 0 is ignored. -ENOMEM; -ERANGE where it passes the disk's end. */
int extent_map_add(ExtentMap *map, uint64_t start, uint64_t length, ExtentState state);

/* Sorts and merges. -EINVAL where extents overlap: the map is then unusable but for extent_map_free(). */
int extent_map_finish(ExtentMap *map);

size_t extent_map_count(const ExtentMap *map);
const Extent *extent_map_get(const ExtentMap *map, size_t index); /* index < count */

/* Index of the first extent that ends after offset, or the count where none does. O(log n). */
size_t extent_map_find(const ExtentMap *map, uint64_t offset);
