#include "extent/extent-map.h"

#include <errno.h>

#include "extents.h"
#include "unit.h"

static void extents_in_any_order_are_sorted_and_merged(void) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;

        CHECK_INT(extent_map_new(1000, &map), 0);
        CHECK_INT(extent_map_add(map, 500, 100, EXTENT_ZERO), 0);
        CHECK_INT(extent_map_add(map, 0, 100, EXTENT_DATA), 0);
        CHECK_INT(extent_map_add(map, 100, 100, EXTENT_DATA), 0);
        CHECK_INT(extent_map_add(map, 600, 0, EXTENT_DATA), 0);
        CHECK_INT(extent_map_add(map, 200, 10, EXTENT_ZERO), 0);
        CHECK_INT(extent_map_finish(map), 0);

        CHECK_INT(extent_map_count(map), 3);
        CHECK_INT(extent_map_get(map, 0)->length, 200);
        CHECK_INT(extent_map_get(map, 1)->start, 200);
        CHECK_INT(extent_map_get(map, 2)->start, 500);
        CHECK_INT(extent_map_get(map, 2)->length, 100);
        CHECK_INT(extents_total(map, EXTENT_DATA), 200);
        CHECK_INT(extents_total(map, EXTENT_ZERO), 110);
}

static void overlap_is_refused(void) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;

        CHECK_INT(extent_map_new(1000, &map), 0);
        CHECK_INT(extent_map_add(map, 0, 100, EXTENT_DATA), 0);
        CHECK_INT(extent_map_add(map, 99, 1, EXTENT_DATA), 0);
        CHECK_INT(extent_map_finish(map), -EINVAL);
}

static void past_the_end_is_refused(void) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;

        CHECK_INT(extent_map_new(1000, &map), 0);
        CHECK_INT(extent_map_add(map, 0, 1001, EXTENT_DATA), -ERANGE);
        CHECK_INT(extent_map_add(map, 1001, 1, EXTENT_DATA), -ERANGE);
        CHECK_INT(extent_map_add(map, 8, UINT64_MAX, EXTENT_DATA), -ERANGE);
        CHECK_INT(extent_map_add(map, 999, 1, EXTENT_DATA), 0);
}

static void find_gives_the_first_extent_that_ends_behind(void) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;

        CHECK_INT(extent_map_new(1000, &map), 0);
        CHECK_INT(extent_map_add(map, 10, 10, EXTENT_DATA), 0);
        CHECK_INT(extent_map_add(map, 30, 10, EXTENT_ZERO), 0);
        CHECK_INT(extent_map_finish(map), 0);
        CHECK_INT(extent_map_find(map, 0), 0);
        CHECK_INT(extent_map_find(map, 19), 0);
        CHECK_INT(extent_map_find(map, 20), 1);
        CHECK_INT(extent_map_find(map, 39), 1);
        CHECK_INT(extent_map_find(map, 40), 2);
}

int main(void) {
        RUN(extents_in_any_order_are_sorted_and_merged);
        RUN(overlap_is_refused);
        RUN(past_the_end_is_refused);
        RUN(find_gives_the_first_extent_that_ends_behind);
        return unit_result();
}
