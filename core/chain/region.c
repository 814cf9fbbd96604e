#include "chain/region.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "util/bytes.h"
#include "util/parallel.h"

#define BATCH 512
#define BATCH_EXTENTS (1u << 18) /* of all maps of a batch together: no more are asked for then */
#define THREADS 8

/* A growing list of extents of one slot. */
typedef struct List {
        RegionExtent *items;
        size_t count, capacity;
} List;

static int list_insert(List *list, size_t index, RegionExtent item) {
        if (list->count == list->capacity) {
                size_t capacity = list->capacity ? list->capacity * 2 : 4;
                RegionExtent *grown = reallocarray(list->items, capacity, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                list->items = grown;
                list->capacity = capacity;
        }
        memmove(&list->items[index + 1], &list->items[index], (list->count - index) * sizeof *list->items);
        list->items[index] = item;
        list->count++;
        return 0;
}

static void list_remove(List *list, size_t index, size_t count) {
        list->count -= count;
        memmove(&list->items[index], &list->items[index + count], (list->count - index) * sizeof *list->items);
}

static uint32_t end_of(const RegionExtent *extent) {
        return extent->start + extent->length;
}

/* The first of items, which are sorted, in [low, high) that ends behind offset, or high. */
static size_t find_end(const RegionExtent *items, size_t low, size_t high, uint32_t offset) {
        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (end_of(&items[middle]) <= offset)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}

/* What is known of REGION_SLOT_SIZE bytes: short lists, so that it costs little to change them in the middle. */
typedef struct Slot {
        List covered; /* unsorted */
        List open;    /* what no layer has covered yet, sorted */
} Slot;

/* The flattening as it goes on. */
typedef struct Flattening {
        const RegionSource *source;
        uint64_t start;  /* of the region, bytes on the disk */
        uint32_t length; /* of it */
        Slot *slots;
        size_t first, end; /* slots: nothing is open in others */
        size_t count;      /* of all extents in them */
        bool damaged;
} Flattening;

static void flattening_clear(Flattening *f) {
        for (size_t i = 0; f->slots && i < divide_up(f->length, REGION_SLOT_SIZE); i++) {
                free(f->slots[i].covered.items);
                free(f->slots[i].open.items);
        }
        free(f->slots);
}

static int flattening_init(Flattening *f) {
        f->end = divide_up(f->length, REGION_SLOT_SIZE);
        f->count = f->end;
        f->slots = calloc(f->end, sizeof *f->slots);
        if (!f->slots)
                return -ENOMEM;
        for (size_t i = 0; i < f->end; i++) {
                uint32_t start = (uint32_t) i * REGION_SLOT_SIZE;
                RegionExtent all = { .start = start, .length = (uint32_t) min_u64(REGION_SLOT_SIZE, f->length - start) };

                if (list_insert(&f->slots[i].open, 0, all) < 0)
                        return -ENOMEM;
        }
        return 0;
}

static bool is_open(Flattening *f) {
        while (f->first < f->end && f->slots[f->first].open.count == 0)
                f->first++;
        while (f->first < f->end && f->slots[f->end - 1].open.count == 0)
                f->end--;
        return f->first < f->end;
}

static uint64_t open_start(const Flattening *f) {
        return f->start + f->slots[f->first].open.items[0].start;
}

static uint64_t open_end(const Flattening *f) {
        const List *open = &f->slots[f->end - 1].open;

        return f->start + end_of(&open->items[open->count - 1]);
}

/* Covers what is open of [start, end) in a slot. */
static int cover_slot(Flattening *f, Slot *slot, uint32_t start, uint32_t end, uint32_t part, ExtentState state) {
        List *open = &slot->open;
        size_t before = slot->covered.count + open->count;
        size_t first = find_end(open->items, 0, open->count, start), last = first;

        for (; last < open->count && open->items[last].start < end; last++) {
                RegionExtent *item = &open->items[last];
                uint32_t from = item->start > start ? item->start : start, to = (uint32_t) min_u64(end_of(item), end);

                if (list_insert(&slot->covered, slot->covered.count, (RegionExtent) { from, to - from, part, state }) < 0)
                        return -ENOMEM;
        }
        if (last > first) {
                RegionExtent head = open->items[first], tail = open->items[last - 1];

                if (end_of(&tail) > end)
                        open->items[--last] = (RegionExtent) { .start = end, .length = end_of(&tail) - end };
                if (head.start < start) {
                        head.length = start - head.start;
                        if (first < last)
                                open->items[first++] = head;
                        else if (list_insert(open, first, head) < 0)
                                return -ENOMEM;
                        else
                                last = ++first;
                }
                list_remove(open, first, last - first);
        }
        f->count += slot->covered.count + open->count - before;
        return 0;
}

static int cover(Flattening *f, uint32_t start, uint32_t end, uint32_t part, ExtentState state) {
        for (size_t i = start / REGION_SLOT_SIZE; i < f->end && start < end; i++) {
                uint32_t stop = (uint32_t) min_u64(end, (i + 1) * (uint64_t) REGION_SLOT_SIZE);

                if (i >= f->first && cover_slot(f, &f->slots[i], start, stop, part, state) < 0)
                        return -ENOMEM;
                start = stop;
        }
        return 0;
}

/* All that is open from here on is nobody's. */
static int lose_open(Flattening *f, uint32_t from, uint32_t part) {
        f->damaged |= is_open(f) && open_end(f) > f->start + from;
        return cover(f, from, f->length, part, EXTENT_UNREADABLE);
}

/* Lets a layer's map, which has nothing outside of the region, cover what it can of what is open. */
static int cover_map(Flattening *f, const ExtentMap *map, uint32_t part) {
        for (size_t i = 0; i < extent_map_count(map); i++) {
                const Extent *extent = extent_map_get(map, i);
                uint32_t start = (uint32_t) (extent->start - f->start);

                if (cover(f, start, start + (uint32_t) extent->length, part, extent->state) < 0)
                        return -ENOMEM;
        }
        return 0;
}

/* What some neighbouring parts have in a range, asked at once: most of the time is waiting for the disk. */
typedef struct Batch {
        const RegionSource *source;
        uint32_t first; /* part */
        uint64_t start, end;
        atomic_size_t extents;
        ExtentMap *maps[BATCH];
        int results[BATCH];
        bool asked[BATCH]; /* the first always is */
} Batch;

static void ask_one(void *context, size_t index) {
        Batch *batch = context;
        const RegionSource *source = batch->source;
        size_t part = batch->first + index;
        uint64_t end = min_u64(batch->end, source->limit(source->context, part));

        batch->asked[index] = atomic_load(&batch->extents) < BATCH_EXTENTS;
        if (!batch->asked[index])
                return;
        batch->results[index] = -EIO;
        if (end > batch->start)
                batch->results[index] = source->extents(source->context, part, batch->start, end - batch->start,
                                                        &batch->maps[index]);
        if (batch->maps[index])
                atomic_fetch_add(&batch->extents, extent_map_count(batch->maps[index]));
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
        if (limit < open_end(f)) {
                rc = lose_open(f, limit > f->start ? (uint32_t) (limit - f->start) : 0, REGION_LOST);
                if (rc < 0 || !is_open(f))
                        return rc;
        }
        if (result == -ENOMEM || result == -EAGAIN || result == -EBUSY)
                return result;
        if (result < 0)
                return lose_open(f, 0, part);
        f->damaged |= result > 0;
        return cover_map(f, map, part);
}

/* Asks some parts, one after the other or at once, and takes what they have. *ret_count: how many; fewer where that is
 * much. */
static int ask_parts(Flattening *f, uint32_t first, uint32_t count, size_t limit, uint32_t *ret_count) {
        CLEANUP(batch_clear) Batch batch = {
                .source = f->source,
                .first = first,
                .start = open_start(f),
                .end = open_end(f),
        };
        uint32_t taken = 0;
        int rc = 0;

        parallel_for(count, THREADS, ask_one, &batch);
        for (; rc >= 0 && taken < count && batch.asked[taken] && is_open(f); taken++) {
                rc = take_part(f, first + taken, batch.results[taken], batch.maps[taken]);
                if (rc >= 0 && f->count > limit)
                        rc = -E2BIG;
        }
        *ret_count = taken;
        return rc;
}

static int compare_starts(const void *a, const void *b) {
        const RegionExtent *x = a, *y = b;

        return (x->start > y->start) - (x->start < y->start);
}

/* Whether the two, of which the second begins where the first ends, are one. */
static bool is_joined(const RegionExtent *first, const RegionExtent *second) {
        return first->part == second->part && first->state == second->state;
}

static uint32_t count_slots(const Region *region) {
        return (uint32_t) divide_up(region->length, REGION_SLOT_SIZE);
}

size_t region_cost(const Region *region) {
        return sizeof *region + region->count * sizeof *region->extents +
               (count_slots(region) + 1) * sizeof *region->firsts;
}

/* Nothing is open any more. */
static int make_region(const Flattening *f, Region **ret) {
        Region *region, *shrunk;
        uint32_t *firsts;

        region = malloc(sizeof *region + f->count * sizeof *region->extents +
                        (divide_up(f->length, REGION_SLOT_SIZE) + 1) * sizeof *firsts);
        if (!region)
                return -ENOMEM;
        *region = (Region) { .start = f->start, .length = f->length, .damaged = f->damaged };
        for (uint32_t i = 0; i < count_slots(region); i++) {
                List *list = &f->slots[i].covered;

                qsort(list->items, list->count, sizeof *list->items, compare_starts);
                for (size_t j = 0; j < list->count; j++) {
                        RegionExtent *last = region->count > 0 ? &region->extents[region->count - 1] : NULL;

                        if (last && is_joined(last, &list->items[j]))
                                last->length += list->items[j].length;
                        else
                                region->extents[region->count++] = list->items[j];
                }
        }
        shrunk = realloc(region, region_cost(region));
        region = shrunk ?: region;
        firsts = (uint32_t *) &region->extents[region->count];
        for (uint32_t i = 0, extent = 0; i < count_slots(region); i++) {
                while (end_of(&region->extents[extent]) <= i * REGION_SLOT_SIZE)
                        extent++;
                firsts[i] = extent;
        }
        firsts[count_slots(region)] = region->count - 1;
        region->firsts = firsts;
        *ret = region;
        return 0;
}

int region_flatten(const RegionSource *source, uint64_t start, uint32_t length, size_t limit, Region **ret) {
        CLEANUP(flattening_clear) Flattening f = { .source = source, .start = start, .length = length };
        int rc = flattening_init(&f);

        for (uint32_t part = 0, count; rc >= 0 && part < source->part_count && is_open(&f); part += count) {
                /* The newest often cover all, or too much: only as many are asked at once as have been by then. */
                count = (uint32_t) min_u64(part > 0 ? part : 1, min_u64(source->part_count - part, BATCH));
                rc = ask_parts(&f, part, count, limit, &count);
        }
        if (rc >= 0)
                rc = lose_open(&f, 0, REGION_LOST);
        return rc < 0 ? rc : make_region(&f, ret);
}

const RegionExtent *region_find(const Region *region, uint64_t offset) {
        uint32_t within = (uint32_t) (offset - region->start), slot = within / REGION_SLOT_SIZE;

        return &region->extents[find_end(region->extents, region->firsts[slot], region->firsts[slot + 1], within)];
}
