#include "capture/comparison.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"

#define WINDOW_SIZE (256ull << 20) /* bytes whose extents are asked for at once */
#define PART_SIZE (1u << 20)       /* bytes that are compared at once */

typedef struct Comparison {
        Readers *readers;
        Layer *layer;
        Chain *parent; /* or NULL */
        const Stop *stop;
        unsigned char *source, *stored; /* PART_SIZE each */
} Comparison;

/* Who has a range. */
typedef enum Holder { LAYER, PARENT, NOBODY } Holder;

/* A window of the disk while it is compared, from its start to its end. */
typedef struct Window {
        SourceExtents extents; /* the source's */
        size_t index;          /* of the first that is not passed */
} Window;

static void window_clear(Window *window) {
        source_extents_clear(&window->extents);
}

static void comparison_clear(Comparison *comparison) {
        free(comparison->source);
        free(comparison->stored);
}

static int read_stored(const Comparison *comparison, Holder holder, uint64_t start, uint64_t length, Reason *reterr) {
        if (holder == LAYER)
                return layer_read(comparison->layer, comparison->stored, length, start, reterr);
        return holder == PARENT ? chain_read(comparison->parent, comparison->stored, length, start, reterr) : 0;
}

static int compare_range(const Comparison *comparison, Holder holder, uint64_t start, uint64_t length, Reason *reterr) {
        for (uint64_t end = start + length, part; start < end; start += part) {
                bool same;
                int rc;

                part = min_u64(end - start, PART_SIZE);
                if (stop_requested(comparison->stop))
                        return -ECANCELED;
                rc = readers_read(comparison->readers, comparison->source, part, start, true, reterr);
                if (rc == 0)
                        rc = read_stored(comparison, holder, start, part, reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "comparing");
                same = holder == NOBODY ? bytes_are_zero(comparison->source, part) :
                                          memcmp(comparison->source, comparison->stored, part) == 0;
                if (!same)
                        return fail(reterr, -EBADMSG, "what %s is not what the source has, in %llu bytes at %llu",
                                    holder == PARENT ? "stays the parent's" : "was stored", (unsigned long long) part,
                                    (unsigned long long) start);
        }
        return 0;
}

/* Of what reads as zeroes, the source is asked for what it does not call zero by itself. */
static int compare_zeroes(const Comparison *comparison, Window *window, uint64_t start, uint64_t length, Reason *reterr) {
        const SourceExtents *extents = &window->extents;
        uint64_t end = start + length;

        for (; window->index < extents->count && extents->items[window->index].start < end; window->index++) {
                const SourceExtent *e = &extents->items[window->index];
                uint64_t from = max_u64(e->start, start), to = min_u64(e->start + e->length, end);
                int rc = 0;

                if (!e->zero && from < to)
                        rc = compare_range(comparison, NOBODY, from, to - from, reterr);
                if (rc < 0)
                        return rc;
                if (e->start + e->length > end)
                        break;
        }
        return 0;
}

static int compare_state(const Comparison *comparison, Window *window, Holder holder, ExtentState state, uint64_t start,
                         uint64_t length, Reason *reterr) {
        if (state == EXTENT_DATA)
                return compare_range(comparison, holder, start, length, reterr);
        return state == EXTENT_ZERO ? compare_zeroes(comparison, window, start, length, reterr) : 0;
}

/* What the layer does not have. */
static int compare_parent(const Comparison *comparison, Window *window, uint64_t start, uint64_t end, Reason *reterr) {
        if (!comparison->parent)
                return 0;
        end = min_u64(end, chain_size(comparison->parent));
        while (start < end) {
                ChainExtent e;
                uint64_t part;
                int rc = chain_extent_at(comparison->parent, start, &e, reterr);

                if (rc < 0)
                        return rc;
                part = min_u64(e.start + e.length, end) - start;
                rc = compare_state(comparison, window, PARENT, e.state, start, part, reterr);
                if (rc < 0)
                        return rc;
                start += part;
        }
        return 0;
}

static int compare_window(const Comparison *comparison, uint64_t start, uint64_t length, Reason *reterr) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        CLEANUP(window_clear) Window window = { 0 };
        uint64_t at = start;
        int rc;

        rc = layer_extents(comparison->layer, start, length, &map, reterr);
        if (rc < 0)
                return rc;
        if (rc > 0)
                return fail(reterr, -EBADMSG, "the index of what was stored is damaged");
        if (extent_map_count(map) == 0 && !comparison->parent)
                return 0;
        rc = readers_extents(comparison->readers, start, length, &window.extents, reterr);
        for (size_t i = 0; rc == 0 && i < extent_map_count(map); i++) {
                const Extent *e = extent_map_get(map, i);

                rc = compare_parent(comparison, &window, at, e->start, reterr);
                if (rc == 0)
                        rc = compare_state(comparison, &window, LAYER, e->state, e->start, e->length, reterr);
                at = e->start + e->length;
        }
        return rc == 0 ? compare_parent(comparison, &window, at, start + length, reterr) : rc;
}

int comparison_run(Readers *readers, Layer *layer, Chain *parent, const Stop *stop, Reason *reterr) {
        CLEANUP(comparison_clear) Comparison comparison = {
                .readers = readers,
                .layer = layer,
                .parent = parent,
                .stop = stop,
                .source = malloc(PART_SIZE),
                .stored = malloc(PART_SIZE),
        };
        uint64_t size = layer_disk_size(layer);

        if (!comparison.source || !comparison.stored)
                return fail_oom(reterr);
        for (uint64_t at = 0; at < size; at += WINDOW_SIZE) {
                int rc = compare_window(&comparison, at, min_u64(WINDOW_SIZE, size - at), reterr);

                if (rc < 0)
                        return rc;
        }
        return 0;
}
