#include "formats/byte-store.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

int byte_store_read(ByteStore *store, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        if (offset > store->size || length > store->size - offset)
                return fail(reterr, -EIO, "%s: %zu bytes at %" PRIu64 " are past its end", store->name, length, offset);
        return length > 0 ? store->ops->read(store, buffer, length, offset, reterr) : 0;
}

int byte_store_seek(ByteStore *store, uint64_t offset, int whence, uint64_t *ret, Reason *reterr) {
        if (offset < store->size && store->ops->seek)
                return store->ops->seek(store, offset, whence, ret, reterr);
        *ret = whence == SEEK_DATA && offset < store->size ? offset : store->size;
        return 0;
}

void byte_store_expect(ByteStore *store, uint64_t offset, uint64_t length) {
        if (store->ops->expect && offset <= store->size && length <= store->size - offset)
                store->ops->expect(store, offset, length);
}

uint64_t byte_store_size(const ByteStore *store) {
        return store->size;
}

const char *byte_store_name(const ByteStore *store) {
        return store->name;
}

ByteStore *byte_store_free(ByteStore *store) {
        if (store)
                store->ops->free(store);
        return NULL;
}

int byte_sink_append(ByteSink *sink, const void *buffer, size_t length, Reason *reterr) {
        int rc;

        if (length > INT64_MAX - sink->size)
                return fail(reterr, -EFBIG, "%s: too large", sink->name);
        rc = length > 0 ? sink->ops->append(sink, buffer, length, reterr) : 0;
        if (rc >= 0)
                sink->size += length;
        return rc;
}

int byte_sink_commit(ByteSink *sink, Reason *reterr) {
        return sink->ops->commit(sink, reterr);
}

uint64_t byte_sink_size(const ByteSink *sink) {
        return sink->size;
}

ByteSink *byte_sink_free(ByteSink *sink) {
        if (sink)
                sink->ops->free(sink);
        return NULL;
}
