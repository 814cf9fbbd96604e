#include "chain/region.h"

#include <errno.h>
#include <string.h>

#include "util/bytes.h"
#include "util/parallel.h"

#define BATCH 512
#define THREADS 8

/* A growing list of extents of one region, in any order. */
typedef struct List {
        RegionExtent *items;
        size_t count, capacity;
} List;

static void list_clear(List *list) {
        free(list->items);
}

static int list_add(List *list, uint32_t start, uint32_t end, uint32_t part, ExtentState state) {
        if (start >= end)
                return 0;
        if (list->count == list->capacity) {
                size_t capacity = list->capacity ? list->capacity * 2 : 32;
                RegionExtent *grown = reallocarray(list->items, capacity, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                list->items = grown;
                list->capacity = capacity;
        }
        list->items[list->count++] = (RegionExtent) { start, end - start, part, state };
        return 0;
}

static uint32_t end_of(const RegionExtent *extent) {
        return extent->start + extent->length;
}

/* The flattening as it goes on. */
typedef struct Flattening {
        const RegionSource *source;
        uint64_t start; /* of the region, bytes on the disk */
        List covered;   /* unsorted */
        List open;      /* what no layer has covered yet, sorted */
        bool damaged;
} Flattening;

/* All that is open from here on is nobody's. */
static int lose_open(Flattening *f, uint32_t from, uint32_t part) {
        size_t kept = 0;

        for (size_t i = 0; i < f->open.count; i++) {
                RegionExtent open = f->open.items[i];
                uint32_t begin = open.start > from ? open.start : from;

                f->damaged |= begin < end_of(&open);
                if (list_add(&f->covered, begin, end_of(&open), part, EXTENT_UNREADABLE) < 0)
                        return -ENOMEM;
                if (open.start < from)
                        f->open.items[kept++] = (RegionExtent) {
                                .start = open.start,
                                .length = (uint32_t) min_u64(open.length, from - open.start),
                        };
        }
        f->open.count = kept;
        return 0;
}

/* Lets a layer's map cover what it can of what is open; what remains becomes the new list. */
static int cover(Flattening *f, const ExtentMap *map, uint32_t part) {
        CLEANUP(list_clear) List remaining = { 0 };
        size_t i = 0;

        if (extent_map_count(map) == 0)
                return 0;
        for (size_t o = 0; o < f->open.count; o++) {
                uint32_t at = f->open.items[o].start, end = end_of(&f->open.items[o]);

                while (i < extent_map_count(map) &&
                       extent_map_get(map, i)->start + extent_map_get(map, i)->length <= f->start + at)
                        i++;
                for (; i < extent_map_count(map) && at < end; i++) {
                        const Extent *extent = extent_map_get(map, i);
                        uint32_t from, to;

                        if (extent->start >= f->start + end)
                                break;
                        from = (uint32_t) (max_u64(extent->start, f->start + at) - f->start);
                        to = (uint32_t) (min_u64(extent->start + extent->length, f->start + end) - f->start);
                        if (list_add(&remaining, at, from, 0, 0) < 0 ||
                            list_add(&f->covered, from, to, part, extent->state) < 0)
                                return -ENOMEM;
                        at = to;
                        if (extent->start + extent->length > f->start + end)
                                break; /* the next open range may begin in it */
                }
                if (list_add(&remaining, at, end, 0, 0) < 0)
                        return -ENOMEM;
        }
        list_clear(&f->open);
        f->open = remaining;
        remaining = (List) { 0 };
        return 0;
}

/* What some neighbouring parts have in a range, asked at once: most of the time is waiting for the disk. */
typedef struct Batch {
        const RegionSource *source;
        uint32_t first; /* part */
        uint64_t start, end;
        ExtentMap *maps[BATCH];
        int results[BATCH];
} Batch;

static void ask_one(void *context, size_t index) {
        Batch *batch = context;
        const RegionSource *source = batch->source;
        size_t part = batch->first + index;
        uint64_t end = min_u64(batch->end, source->limit(source->context, part));

        batch->results[index] = -EIO;
        if (end > batch->start)
                batch->results[index] = source->extents(source->context, part, batch->start, end - batch->start,
                                                        &batch->maps[index]);
}

static void batch_clear(Batch *batch) {
        for (size_t i = 0; i < BATCH; i++)
                extent_map_free(batch->maps[i]);
}

/* Takes what a part has, which result and map tell of all that was open when it was asked. */
static int take_part(Flattening *f, uint32_t part, int result, const ExtentMap *map) {
        uint64_t limit = f->source->limit(f->source->context, part);
        int rc;

        /* A disk that was smaller then: what lies behind its end is not in this layer, nor in any older one. */
        if (limit < f->start + end_of(&f->open.items[f->open.count - 1])) {
                rc = lose_open(f, limit > f->start ? (uint32_t) (limit - f->start) : 0, REGION_LOST);
                if (rc < 0 || f->open.count == 0)
                        return rc;
        }
        if (result == -ENOMEM || result == -EAGAIN || result == -EBUSY)
                return result;
        if (result < 0)
                return lose_open(f, 0, part);
        f->damaged |= result > 0;
        return cover(f, map, part);
}

/* Asks some parts, one after the other or at once, and takes what they have. */
static int ask_parts(Flattening *f, uint32_t first, uint32_t count, size_t limit) {
        CLEANUP(batch_clear) Batch batch = {
                .source = f->source,
                .first = first,
                .start = f->start + f->open.items[0].start,
                .end = f->start + end_of(&f->open.items[f->open.count - 1]),
        };
        int rc = 0;

        parallel_for(count, THREADS, ask_one, &batch);
        for (uint32_t i = 0; rc >= 0 && i < count && f->open.count > 0; i++) {
                rc = take_part(f, first + i, batch.results[i], batch.maps[i]);
                if (rc >= 0 && f->covered.count + f->open.count > limit)
                        rc = -E2BIG;
        }
        return rc;
}

static int compare_starts(const void *a, const void *b) {
        const RegionExtent *x = a, *y = b;

        return (x->start > y->start) - (x->start < y->start);
}

static int make_region(Flattening *f, Region **ret) {
        List *list = &f->covered;
        Region *region;
        uint32_t kept = 0;

        qsort(list->items, list->count, sizeof *list->items, compare_starts);
        for (size_t i = 0; i < list->count; i++) {
                RegionExtent *last = kept > 0 ? &list->items[kept - 1] : NULL;

                if (last && last->part == list->items[i].part && last->state == list->items[i].state)
                        last->length += list->items[i].length;
                else
                        list->items[kept++] = list->items[i];
        }
        region = malloc(sizeof *region + kept * sizeof *region->extents);
        if (!region)
                return -ENOMEM;
        region->count = kept;
        region->damaged = f->damaged;
        memcpy(region->extents, list->items, kept * sizeof *region->extents);
        *ret = region;
        return 0;
}

int region_flatten(const RegionSource *source, uint64_t start, uint32_t length, size_t limit, Region **ret) {
        Flattening f = { .source = source, .start = start };
        int rc = list_add(&f.open, 0, length, 0, 0);

        for (uint32_t part = 0, count; rc >= 0 && part < source->part_count && f.open.count > 0; part += count) {
                /* The newest often cover all, or too much: only as many are asked at once as have been by then. */
                count = (uint32_t) min_u64(part > 0 ? part : 1, min_u64(source->part_count - part, BATCH));
                rc = ask_parts(&f, part, count, limit);
        }
        if (rc >= 0)
                rc = lose_open(&f, 0, REGION_LOST);
        if (rc >= 0)
                rc = make_region(&f, ret);
        list_clear(&f.covered);
        list_clear(&f.open);
        return rc;
}

const RegionExtent *region_find(const Region *region, uint32_t offset) {
        uint32_t low = 0, high = region->count;

        while (low < high) {
                uint32_t middle = low + (high - low) / 2;

                if (end_of(&region->extents[middle]) <= offset)
                        low = middle + 1;
                else
                        high = middle;
        }
        return &region->extents[low];
}
