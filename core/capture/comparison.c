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
        const Stop *stop;
        unsigned char *source, *stored; /* PART_SIZE each */
} Comparison;

static void comparison_clear(Comparison *comparison) {
        free(comparison->source);
        free(comparison->stored);
}

static int compare_range(const Comparison *comparison, uint64_t start, uint64_t length, bool zero, Reason *reterr) {
        for (uint64_t end = start + length, part; start < end; start += part) {
                bool same;
                int rc;

                part = min_u64(end - start, PART_SIZE);
                if (stop_requested(comparison->stop))
                        return -ECANCELED;
                rc = readers_read(comparison->readers, comparison->source, part, start, true, reterr);
                if (rc == 0 && !zero)
                        rc = layer_read(comparison->layer, comparison->stored, part, start, reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "comparing");
                same = zero ? bytes_are_zero(comparison->source, part) :
                              memcmp(comparison->source, comparison->stored, part) == 0;
                if (!same)
                        return fail(reterr, -EBADMSG, "what was stored is not what the source has, in %llu bytes at %llu",
                                    (unsigned long long) part, (unsigned long long) start);
        }
        return 0;
}

/* Of what is stored as zeroes, the source is asked for what it does not call zero by itself. */
static int compare_zeroes(const Comparison *comparison, const Extent *stored, const SourceExtents *extents, size_t *index,
                          Reason *reterr) {
        uint64_t end = stored->start + stored->length;

        for (; *index < extents->count && extents->items[*index].start < end; ++*index) {
                const SourceExtent *e = &extents->items[*index];
                uint64_t from = max_u64(e->start, stored->start), to = min_u64(e->start + e->length, end);
                int rc = 0;

                if (!e->zero && from < to)
                        rc = compare_range(comparison, from, to - from, true, reterr);
                if (rc < 0)
                        return rc;
                if (e->start + e->length > end)
                        break;
        }
        return 0;
}

static int compare_window(const Comparison *comparison, uint64_t start, uint64_t length, Reason *reterr) {
        CLEANUP(source_extents_clear) SourceExtents extents = { 0 };
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        size_t index = 0;
        int rc;

        rc = layer_extents(comparison->layer, start, length, &map, reterr);
        if (rc < 0)
                return rc;
        if (rc > 0)
                return fail(reterr, -EBADMSG, "the index of what was stored is damaged");
        if (extent_map_count(map) == 0)
                return 0;
        rc = readers_extents(comparison->readers, start, length, &extents, reterr);
        for (size_t i = 0; rc == 0 && i < extent_map_count(map); i++) {
                const Extent *e = extent_map_get(map, i);

                if (e->state == EXTENT_DATA)
                        rc = compare_range(comparison, e->start, e->length, false, reterr);
                if (e->state == EXTENT_ZERO)
                        rc = compare_zeroes(comparison, e, &extents, &index, reterr);
        }
        return rc;
}

int comparison_run(Readers *readers, Layer *layer, const Stop *stop, Reason *reterr) {
        CLEANUP(comparison_clear) Comparison comparison = {
                .readers = readers,
                .layer = layer,
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
