#include "formats/raw.h"

#include <errno.h>
#include <unistd.h>

#include "util/bytes.h"

typedef struct RawLayer {
        Layer layer;
        ByteStore *bytes;
} RawLayer;

static int raw_extents(Layer *layer, uint64_t start, uint64_t length, ExtentMap *map, Reason *reterr) {
        const RawLayer *raw = (const RawLayer *) layer;
        uint64_t at = start, end = start + length;

        while (at < end) {
                uint64_t data, hole;
                int rc = byte_store_seek(raw->bytes, at, SEEK_DATA, &data, reterr);

                if (rc < 0)
                        return rc;
                data = min_u64(data, end);
                if (extent_map_add(map, at, data - at, EXTENT_ZERO) < 0)
                        return fail_oom(reterr);
                at = data;
                if (at == end)
                        break;
                rc = byte_store_seek(raw->bytes, at, SEEK_HOLE, &hole, reterr);
                if (rc < 0)
                        return rc;
                /* A file that changes while it is looked at must not hold this up. */
                hole = hole > at ? min_u64(hole, end) : end;
                if (extent_map_add(map, at, hole - at, EXTENT_DATA) < 0)
                        return fail_oom(reterr);
                at = hole;
        }
        return 0;
}

static int raw_read(Layer *layer, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        return byte_store_read(((RawLayer *) layer)->bytes, buffer, length, offset, reterr);
}

static void raw_free(Layer *layer) {
        byte_store_free(((RawLayer *) layer)->bytes);
        free(layer);
}

static const LayerOps raw_ops = { .extents = raw_extents, .read = raw_read, .free = raw_free };

int raw_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr) {
        CLEANUP(byte_store_freep) ByteStore *bytes = NULL;
        RawLayer *raw;
        int rc = layer_store_open_file(store, location, &bytes, reterr);

        if (rc < 0)
                return rc;
        raw = calloc(1, sizeof *raw);
        if (!raw)
                return fail_oom(reterr);
        raw->layer.ops = &raw_ops;
        raw->layer.disk_size = byte_store_size(bytes);
        raw->bytes = STEAL_PTR(bytes);
        *ret = &raw->layer;
        return 0;
}
