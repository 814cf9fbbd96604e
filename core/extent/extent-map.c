#include "extent/extent-map.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>

struct ExtentMap {
        uint64_t disk_size;
        Extent *extents;
        size_t count, capacity;
        bool sorted; /* so far: maps are nearly always filled in order */
        bool finished;
};

int extent_map_new(uint64_t disk_size, ExtentMap **ret) {
        ExtentMap *map = calloc(1, sizeof *map);

        if (!map)
                return -ENOMEM;
        map->disk_size = disk_size;
        map->sorted = true;
        *ret = map;
        return 0;
}

ExtentMap *extent_map_free(ExtentMap *map) {
        if (map)
                free(map->extents);
        free(map);
        return NULL;
}

int extent_map_add(ExtentMap *map, uint64_t start, uint64_t length, ExtentState state) {
        Extent *last = map->count > 0 ? &map->extents[map->count - 1] : NULL;

        assert(!map->finished);
        if (length == 0)
                return 0;
        if (start > map->disk_size || length > map->disk_size - start)
                return -ERANGE;
        if (last && last->start + last->length == start && last->state == state) {
                last->length += length;
                return 0;
        }
        if (map->count == map->capacity) {
                size_t capacity = map->capacity ? map->capacity * 2 : 16;
                Extent *grown = reallocarray(map->extents, capacity, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                map->extents = grown;
                map->capacity = capacity;
                last = map->count > 0 ? &map->extents[map->count - 1] : NULL;
        }
        if (last && start < last->start + last->length)
                map->sorted = false;
        map->extents[map->count++] = (Extent) { start, length, state };
        return 0;
}

static int compare_starts(const void *a, const void *b) {
        const Extent *x = a, *y = b;

        return (x->start > y->start) - (x->start < y->start);
}

int extent_map_finish(ExtentMap *map) {
        size_t kept = 0;

        assert(!map->finished);
        if (!map->sorted)
                qsort(map->extents, map->count, sizeof *map->extents, compare_starts);
        for (size_t i = 0; i < map->count; i++) {
                const Extent *next = &map->extents[i];
                Extent *last = kept > 0 ? &map->extents[kept - 1] : NULL;

                if (last && next->start < last->start + last->length)
                        return -EINVAL;
                if (last && next->start == last->start + last->length && next->state == last->state)
                        last->length += next->length;
                else
                        map->extents[kept++] = *next;
        }
        map->count = kept;
        map->finished = true;
        return 0;
}

size_t extent_map_count(const ExtentMap *map) {
        assert(map->finished);
        return map->count;
}

const Extent *extent_map_get(const ExtentMap *map, size_t index) {
        assert(map->finished && index < map->count);
        return &map->extents[index];
}

size_t extent_map_find(const ExtentMap *map, uint64_t offset) {
        size_t low = 0, high = map->count;

        assert(map->finished);
        while (low < high) {
                size_t middle = low + (high - low) / 2;
                const Extent *e = &map->extents[middle];

                if (e->start + e->length <= offset)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}
