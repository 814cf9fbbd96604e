/* core/chain/region.h - a piece of a disk, flattened: for each range, which of a chain's layers holds it.
 *
 * Threads: a finished region is immutable. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "extent/extent-map.h"
#include "util/reason.h"

#define REGION_SIZE (32u << 20)        /* bytes: what is flattened where there is too much in a wide one */
#define REGION_WIDE_SIZE (2048u << 20) /* bytes: what is flattened where more of it will be wanted */
#define REGION_WIDE_EXTENTS 33000      /* of a wide one at most: more than blocks of 64 KiB make */
#define REGION_SLOT_SIZE (4u << 20)    /* bytes: for each of them the first extent is noted */
#define REGION_LOST UINT32_MAX         /* as a part: no layer can hold it */

typedef struct RegionExtent {
        uint32_t start, length; /* bytes, from the region's start */
        uint32_t part;          /* index of the layer in the chain */
        uint32_t state;         /* an ExtentState */
} RegionExtent;

typedef struct Region {
        uint64_t start; /* bytes on the disk */
        uint32_t length;
        uint32_t count;
        bool damaged;           /* something could not be told: worth asking again next time */
        const uint32_t *firsts; /* of each slot: index of the extent that holds its beginning; and the last of all */
        RegionExtent extents[]; /* one allocation with firsts */
} Region;

/* What a region is made of: a chain's layers, newest first. */
typedef struct RegionSource {
        size_t part_count;
        /* What the part has in a range, as layer_extents() tells it; where it fails all that newer ones leave is lost, but
         * for -EAGAIN and -EBUSY, with which nothing is made. Called from several threads at once where there are many
         * parts. */
        int (*extents)(void *context, size_t part, uint64_t start, uint64_t length, ExtentMap **ret);
        /* The smallest disk size of this part and all newer ones: what lies behind is none of this part's. */
        uint64_t (*limit)(void *context, size_t part);
        void *context;
} RegionSource;

/* Flattens [start, start + length): length <= REGION_WIDE_SIZE, within the disk. Every byte is in an extent of the result;
 * neighbours with the same state and part are joined. The caller frees *ret. -ENOMEM; -E2BIG where there are more
 * extents than limit. */
int region_flatten(const RegionSource *source, uint64_t start, uint32_t length, size_t limit, Region **ret);

/* Bytes of memory. */
size_t region_cost(const Region *region);

/* The extent that holds offset, on the disk. O(log n), n being those of a slot. */
const RegionExtent *region_find(const Region *region, uint64_t offset);
