#include "formats/virtnbdbackup/stream.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>

#include "formats/virtnbdbackup/head.h"
#include "formats/virtnbdbackup/lz4-reader.h"
#include "formats/virtnbdbackup/stream-index.h"
#include "util/bytes.h"

typedef struct StreamLayer {
        Layer layer;
        ByteStore *bytes;
        Memory memory;
        Shape shape;
        StreamIndex *index;
        _Atomic uint64_t last; /* end of the last read, of whatever thread */
} StreamLayer;

#define NEAR (2u << 20) /* bytes: who reads no farther from the last read goes on from there */

/* A range that no run tells of. */
static int add_gap(const StreamLayer *stream, uint64_t start, uint64_t end, ExtentMap *map) {
        start = max_u64(start, stream->shape.zero_from);
        return end > start ? extent_map_add(map, start, end - start, EXTENT_ZERO) : 0;
}

/* The runs from the first that ends behind start; *at moves to the end of what has been added. 0, or what ended it. */
static int add_runs(StreamLayer *stream, uint64_t start, uint64_t end, uint64_t *at, ExtentMap *map, Reason *reterr) {
        CLEANUP(run_place_clear) RunPlace place = { 0 };
        Run run;
        int rc = stream_index_find(stream->index, start, &place, &run, reterr);

        for (*at = start; rc > 0 && *at < end && run.start < end;
             rc = stream_index_next(stream->index, &place, &run, reterr)) {
                uint64_t from = max_u64(run.start, start), to = min_u64(run.start + run.length, end);

                if (add_gap(stream, *at, from, map) < 0 ||
                    extent_map_add(map, from, to - from, run.is_zero ? EXTENT_ZERO : EXTENT_DATA) < 0)
                        return fail_oom(reterr);
                *at = to;
                if (to == end)
                        return 0;
        }
        return rc < 0 ? rc : 0;
}

static int stream_extents(Layer *layer, uint64_t start, uint64_t length, ExtentMap *map, Reason *reterr) {
        StreamLayer *stream = (StreamLayer *) layer;
        uint64_t at = start, end = start + length;
        int rc = add_runs(stream, start, end, &at, map, reterr);

        if (rc == -ENOMEM)
                return rc;
        if (rc < 0)
                return extent_map_add(map, at, end - at, EXTENT_UNREADABLE) < 0 ? fail_oom(reterr) : 1;
        return add_gap(stream, at, end, map) < 0 ? fail_oom(reterr) : 0;
}

/* Whether reads go through the disk rather than here and there. */
static bool is_near(uint64_t last, uint64_t offset) {
        return offset > last ? offset - last <= NEAR : last - offset <= NEAR;
}

static int read_run(const StreamLayer *stream, const Run *run, void *buffer, size_t length, uint64_t offset, bool keeps,
                    Reason *reterr) {
        if (stream->shape.compressed)
                return lz4_read(stream->bytes, &stream->memory, run, buffer, length, offset - run->start, keeps, reterr);
        return byte_store_read(stream->bytes, buffer, length, run->offset + (offset - run->start), reterr);
}

static int stream_read(Layer *layer, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        StreamLayer *stream = (StreamLayer *) layer;
        CLEANUP(run_place_clear) RunPlace place = { 0 };
        uint64_t at = offset, end = offset + length;
        bool keeps = is_near(atomic_exchange_explicit(&stream->last, end, memory_order_relaxed), offset);
        Run run;
        int rc = stream_index_find(stream->index, offset, &place, &run, reterr);

        while (rc > 0) {
                uint64_t to = min_u64(run.start + run.length, end);

                if (run.start > at || run.is_zero)
                        break;
                rc = read_run(stream, &run, (unsigned char *) buffer + (at - offset), (size_t) (to - at), at, keeps, reterr);
                if (rc < 0)
                        return rc;
                at = to;
                if (at == end)
                        return 0;
                rc = stream_index_next(stream->index, &place, &run, reterr);
        }
        if (rc < 0)
                return rc;
        return fail(reterr, -EIO, "%s has no data at %" PRIu64, byte_store_name(stream->bytes), at);
}

static void stream_free(Layer *layer) {
        StreamLayer *stream = (StreamLayer *) layer;

        cache_forget(stream->memory.cache, stream->memory.owner);
        stream_index_free(stream->index);
        byte_store_free(stream->bytes);
        free(stream);
}

static const LayerOps stream_ops = { .extents = stream_extents, .read = stream_read, .free = stream_free };

static void stream_cleanup(StreamLayer **stream) {
        if (*stream)
                stream_free(&(*stream)->layer);
}

int stream_open(LayerStore *store, const LayerLocation *location, ByteStore *bytes, uint64_t grown_from, Layer **ret,
                Reason *reterr) {
        CLEANUP(stream_cleanup) StreamLayer *stream = calloc(1, sizeof *stream);
        int rc;

        if (!stream) {
                byte_store_free(bytes);
                return fail_oom(reterr);
        }
        stream->layer.ops = &stream_ops;
        stream->bytes = bytes;
        atomic_init(&stream->last, UINT64_MAX / 2);
        stream->memory = (Memory) { layer_store_memory(store), cache_new_owner() };
        if (byte_store_size(bytes) >= MEMORY_OFFSET_MAX)
                return fail(reterr, -ENOTSUP, "%s is too large", byte_store_name(bytes));
        rc = head_read(store, location, bytes, grown_from, &stream->shape, reterr);
        if (rc < 0)
                return rc;
        stream->layer.disk_size = stream->shape.disk_size;
        rc = stream_index_new(&stream->shape, &stream->memory, &stream->index, reterr);
        if (rc < 0)
                return rc;
        *ret = &STEAL_PTR(stream)->layer;
        return 0;
}
