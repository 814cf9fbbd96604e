#include "formats/virtnbdbackup/stream-index.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "util/bytes.h"

#define SEGMENT_FIRST 2u        /* runs in the first: whoever reads the beginning of a disk should not wait for more */
#define SEGMENT_MAX 1024u       /* each next has twice as many, up to this */
#define SEGMENTS_MAX (1u << 18) /* of a stream: a quarter of a thousand million runs */

typedef enum SegmentEnd { SEGMENT_GOES_ON, SEGMENT_STOPS, SEGMENT_BREAKS } SegmentEnd;

typedef struct Segment {
        SegmentEnd end;
        char *words; /* why it breaks */
        size_t count;
        Run runs[];
} Segment;

struct StreamIndex {
        const Shape *shape;
        const Memory *memory;
        pthread_mutex_t lock; /* of what follows; nothing else is locked within */
        Cursor *begins;       /* of each segment that is known of */
        size_t begin_count, capacity;
};

int stream_index_new(const Shape *shape, const Memory *memory, StreamIndex **ret, Reason *reterr) {
        StreamIndex *index = calloc(1, sizeof *index);

        if (!index)
                return fail_oom(reterr);
        index->capacity = 4;
        index->begins = calloc(index->capacity, sizeof *index->begins);
        if (!index->begins) {
                free(index);
                return fail_oom(reterr);
        }
        index->shape = shape;
        index->memory = memory;
        index->begins[0] = cursor_begin(shape);
        index->begin_count = 1;
        pthread_mutex_init(&index->lock, NULL);
        *ret = index;
        return 0;
}

StreamIndex *stream_index_free(StreamIndex *index) {
        if (index) {
                pthread_mutex_destroy(&index->lock);
                free(index->begins);
        }
        free(index);
        return NULL;
}

static size_t segment_runs(size_t number) {
        return number < 16 ? (size_t) min_u64(SEGMENT_MAX, SEGMENT_FIRST << number) : SEGMENT_MAX;
}

static Cursor segment_begin(StreamIndex *index, size_t number) {
        Cursor begin;

        pthread_mutex_lock(&index->lock);
        begin = index->begins[number];
        pthread_mutex_unlock(&index->lock);
        return begin;
}

/* Notes where a segment begins, where that is not known yet. */
static int note_begin(StreamIndex *index, size_t number, const Cursor *begin) {
        int rc = 0;

        pthread_mutex_lock(&index->lock);
        if (number == index->begin_count) {
                if (number == index->capacity) {
                        Cursor *grown = reallocarray(index->begins, index->capacity * 2, sizeof *grown);

                        if (grown) {
                                index->begins = grown;
                                index->capacity *= 2;
                        } else
                                rc = -ENOMEM;
                }
                if (rc == 0)
                        index->begins[index->begin_count++] = *begin;
        }
        pthread_mutex_unlock(&index->lock);
        return rc;
}

/* The segment of those that are known of in which a run for offset is to be looked for. */
static size_t find_begin(StreamIndex *index, uint64_t offset) {
        size_t low = 0, high;

        pthread_mutex_lock(&index->lock);
        high = index->begin_count;
        while (high - low > 1) {
                size_t middle = low + (high - low) / 2;

                if (index->begins[middle].reached <= offset)
                        low = middle;
                else
                        high = middle;
        }
        pthread_mutex_unlock(&index->lock);
        return low;
}

static void free_segment(void *value) {
        Segment *segment = value;

        free(segment->words);
        free(segment);
}

static void segment_cleanup(Segment **segment) {
        if (*segment)
                free_segment(*segment);
}

static int fill_segment(StreamIndex *index, Segment *segment, size_t wanted, Cursor *cursor, Reason *reterr) {
        Window window = { 0 }, trailer = { 0 };
        Reason reason = REASON_INIT;
        int rc = 1;

        while (rc > 0 && segment->count < wanted) {
                rc = cursor_next(index->shape, cursor, &window, &trailer, &segment->runs[segment->count], &reason);
                segment->count += rc > 0;
        }
        if (rc >= 0) {
                segment->end = rc > 0 ? SEGMENT_GOES_ON : SEGMENT_STOPS;
                return 0;
        }
        if (rc != -EBADMSG && rc != -ENOTSUP)
                return fail(reterr, rc, "%s", reason.text);
        segment->end = SEGMENT_BREAKS;
        segment->words = strdup(reason.text);
        return segment->words ? 0 : fail_oom(reterr);
}

static int load_segment(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        StreamIndex *index = context;
        size_t number = (size_t) memory_key_offset(key), wanted = segment_runs(number);
        CLEANUP(segment_cleanup) Segment *segment = calloc(1, sizeof *segment + wanted * sizeof *segment->runs);
        Cursor cursor = segment_begin(index, number);
        int rc;

        if (!segment)
                return fail_oom(reterr);
        rc = fill_segment(index, segment, wanted, &cursor, reterr);
        if (rc < 0)
                return rc;
        if (segment->end == SEGMENT_GOES_ON && number + 1 == SEGMENTS_MAX) {
                segment->end = SEGMENT_BREAKS;
                segment->words = strdup("it has more frames than are looked at");
                if (!segment->words)
                        return fail_oom(reterr);
        }
        if (segment->end == SEGMENT_GOES_ON && note_begin(index, number + 1, &cursor) < 0)
                return fail_oom(reterr);
        *ret_cost = sizeof *segment + wanted * sizeof *segment->runs;
        *ret = STEAL_PTR(segment);
        return 0;
}

static const CacheLoader segment_loader = { load_segment, free_segment };

static int get_segment(StreamIndex *index, size_t number, CacheEntry **ret, Reason *reterr) {
        return cache_get(index->memory->cache, memory_key(index->memory, MEMORY_SEGMENT, number, 0), &segment_loader, index,
                         ret, reterr);
}

/* The run at the place, or the first of the segments behind it. */
static int take_run(StreamIndex *index, RunPlace *place, Run *ret, Reason *reterr) {
        for (;;) {
                const Segment *segment = cache_value(place->segment);
                int rc;

                if (place->at < segment->count) {
                        *ret = segment->runs[place->at];
                        return 1;
                }
                if (segment->end == SEGMENT_STOPS)
                        return 0;
                if (segment->end == SEGMENT_BREAKS)
                        return fail(reterr, -EIO, "%s", segment->words);
                place->segment = cache_release(place->segment);
                rc = get_segment(index, place->number + 1, &place->segment, reterr);
                if (rc < 0)
                        return rc;
                place->number++;
                place->at = 0;
        }
}

/* The first run of the segment that ends behind offset; the count where there is none. */
static size_t find_run(const Segment *segment, uint64_t offset) {
        size_t low = 0, high = segment->count;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                const Run *run = &segment->runs[middle];

                if (run->start + run->length > offset)
                        high = middle;
                else
                        low = middle + 1;
        }
        return low;
}

int stream_index_find(StreamIndex *index, uint64_t offset, RunPlace *place, Run *ret, Reason *reterr) {
        size_t number = find_begin(index, offset);

        for (;; number++) {
                const Segment *segment;
                int rc = get_segment(index, number, &place->segment, reterr);

                if (rc < 0)
                        return rc;
                segment = cache_value(place->segment);
                place->number = number;
                place->at = find_run(segment, offset);
                if (place->at < segment->count || segment->end != SEGMENT_GOES_ON)
                        return take_run(index, place, ret, reterr);
                place->segment = cache_release(place->segment);
        }
}

int stream_index_next(StreamIndex *index, RunPlace *place, Run *ret, Reason *reterr) {
        place->at++;
        return take_run(index, place, ret, reterr);
}

void run_place_clear(RunPlace *place) {
        if (place->segment)
                cache_release(place->segment);
        *place = (RunPlace) { 0 };
}
