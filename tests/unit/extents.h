/* tests/unit/extents.h - what tests ask of an extent map. */
#pragma once

#include "extent/extent-map.h"

/* The extent that holds the byte at offset; NULL: none does. */
static inline const Extent *extent_at(const ExtentMap *map, uint64_t offset) {
        for (size_t i = 0; i < extent_map_count(map); i++) {
                const Extent *extent = extent_map_get(map, i);

                if (extent->start <= offset && offset - extent->start < extent->length)
                        return extent;
        }
        return NULL;
}

/* Bytes in one state. */
static inline uint64_t extents_total(const ExtentMap *map, ExtentState state) {
        uint64_t total = 0;

        for (size_t i = 0; i < extent_map_count(map); i++)
                if (extent_map_get(map, i)->state == state)
                        total += extent_map_get(map, i)->length;
        return total;
}
