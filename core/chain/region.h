/* core/chain/region.h - a piece of a disk, flattened: for each range, which of a chain's layers holds it.
 *
 * Threads: a finished region is immutable. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "extent/extent-map.h"
#include "util/reason.h"

#define REGION_SIZE (32u << 20)       /* bytes: what a read flattens at least */
#define REGION_WIDE_SIZE (2048u << 20) /* bytes: what a walk over the disk flattens where little is in it */
#define REGION_WIDE_EXTENTS 4096      /* what is little */
#define REGION_LOST UINT32_MAX  /* as a part: no layer can hold it */

typedef struct RegionExtent {
        uint32_t start, length; /* bytes, from the region's start */
        uint32_t part;          /* index of the layer in the chain */
        uint32_t state;         /* an ExtentState */
} RegionExtent;

typedef struct Region {
        uint32_t count;
        bool damaged; /* something could not be told: worth asking again next time */
        RegionExtent extents[];
} Region;

/* What a region is made of: a chain's layers, newest first. */
typedef struct RegionSource {
        size_t part_count;
        /* What the part has in a range, as layer_extents() tells it; where it fails all that newer ones leave is lost, but
         * for -EAGAIN and -EBUSY, with which nothing is made. Called
         * from several threads at once where there are many parts. */
        int (*extents)(void *context, size_t part, uint64_t start, uint64_t length, ExtentMap **ret);
        /* The smallest disk size of this part and all newer ones: what lies behind is none of this part's. */
        uint64_t (*limit)(void *context, size_t part);
        void *context;
} RegionSource;

/* Flattens [start, start + length): length <= REGION_WIDE_SIZE, within the disk. Every byte is in an extent of the result;
 * neighbours with the same state and part are joined. The caller frees *ret. -ENOMEM; -E2BIG where there are more
 * extents than limit. */
int region_flatten(const RegionSource *source, uint64_t start, uint32_t length, size_t limit, Region **ret);

/* The extent that holds offset, from the region's start. O(log n). */
const RegionExtent *region_find(const Region *region, uint32_t offset);
