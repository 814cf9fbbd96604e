/* What is asked of layers, and kept meanwhile, to flatten a piece of a disk. */
#include <errno.h>
#include <stdatomic.h>

#include "chain/region.h"
#include "unit.h"

#define LENGTH (64u << 20)
#define BLOCK 4096u
#define BLOCKS (LENGTH / BLOCK)
#define PARTS 600u
#define COVERING 260u /* the part that has all */

/* All parts but that one have every second block, each in an extent of its own. */
static int tell_extents(void *context, size_t part, uint64_t start, uint64_t length, ExtentMap **ret) {
        atomic_uint *asked = context;
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;

        CHECK_INT(extent_map_new(LENGTH, &map), 0);
        if (part == COVERING)
                CHECK_INT(extent_map_add(map, start, length, EXTENT_ZERO), 0);
        for (uint64_t at = start; part != COVERING && at < start + length; at += BLOCK)
                if (at / BLOCK % 2)
                        CHECK_INT(extent_map_add(map, at, BLOCK, EXTENT_DATA), 0);
        CHECK_INT(extent_map_finish(map), 0);
        atomic_fetch_add(asked, 1);
        *ret = STEAL_PTR(map);
        return 0;
}

static uint64_t tell_limit(void *context, size_t part) {
        (void) context;
        (void) part;
        return LENGTH;
}

static void layers_of_many_extents_are_asked_a_few_at_a_time(void) {
        atomic_uint asked = 0; /* parts */
        RegionSource parts = { PARTS, tell_extents, tell_limit, &asked };
        Region *region = NULL;

        CHECK_INT(region_flatten(&parts, 0, LENGTH, SIZE_MAX, &region), 0);
        CHECK_INT(region->count, BLOCKS);
        for (uint32_t i = 0; i < region->count; i++) {
                CHECK_INT(region->extents[i].part, i % 2 ? 0 : COVERING);
                CHECK_INT(region->extents[i].state, i % 2 ? EXTENT_DATA : EXTENT_ZERO);
        }
        /* Of 8,192 extents each the maps of 32 are as many as are kept at once, and of one more for each thread. */
        CHECK(atomic_load(&asked) > COVERING);
        CHECK(atomic_load(&asked) <= COVERING + 140);
        free(region);
}

int main(void) {
        RUN(layers_of_many_extents_are_asked_a_few_at_a_time);
        return unit_result();
}
