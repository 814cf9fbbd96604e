#include "chain/chain-private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "util/bytes.h"
#include "util/clock.h"

/* Reading from memory takes less than this, decompression included. */
#define WAITED_NS 40000
#define WAITED_NS_PER_KIB 500
/* How often all of a range is expected before it is looked at again whether that is of use, which nobody sees meanwhile. */
#define EXPECTED_TIMES 32

/* The words for a range that cannot be read; never succeeds. */
static int explain(Chain *chain, uint32_t index, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        Layer *layer;
        int rc;

        if (index == REGION_LOST && !chain->damage && chain->backing)
                return fail(reterr, -EIO, "byte %" PRIu64 " of the disk was left out: its backing file %s has it", offset,
                            chain->backing);
        if (index == REGION_LOST)
                return fail(reterr, -EIO, "byte %" PRIu64 " of the disk is in no layer: %s", offset,
                            chain->damage ?: "the chain is incomplete");
        rc = chain_layer(chain, index, &layer, reterr);
        if (rc >= 0)
                rc = layer_read(layer, buffer, length, offset, reterr);
        if (rc >= 0)
                return fail(reterr, -EIO, "%s could not be read at %" PRIu64 ", and now can", chain->parts[index].path,
                            offset);
        return rc == -ENOMEM ? rc : -EIO;
}

/* A range of a region that is being read from front to back. */
typedef struct RegionRead {
        Chain *chain;
        const Region *region;
        uint64_t offset, end;       /* bytes on the disk */
        const RegionExtent *extent; /* that holds offset */
        unsigned char *to;
} RegionRead;

static uint64_t extent_end(const RegionRead *read, const RegionExtent *extent) {
        return min_u64(read->end, read->region->start + extent->start + extent->length);
}

/* Pieces of many layers lie all over the disk: they are fetched at once rather than waited for one by one. */
static void expect_all(const RegionRead *read) {
        const RegionExtent *extent = read->extent;

        for (uint64_t at = read->offset; at < read->end; extent++) {
                uint64_t next = extent_end(read, extent);
                Layer *layer;

                if (extent->state == EXTENT_DATA && chain_layer(read->chain, extent->part, &layer, NULL) >= 0)
                        layer_expect(layer, at, next - at);
                at = next;
        }
}

/* Looks whether reading waits for the disk; where it does the following pieces are expected. */
static int read_and_look(RegionRead *read, Layer *layer, size_t length, Reason *reterr) {
        uint64_t begin = clock_now_ns();
        int rc = layer_read(layer, read->to, length, read->offset, reterr);

        if (rc >= 0 && clock_now_ns() - begin > WAITED_NS + length / 1024 * WAITED_NS_PER_KIB) {
                RegionRead rest = *read;

                rest.offset += length;
                rest.extent++;
                expect_all(&rest);
                atomic_store_explicit(&read->chain->waits, EXPECTED_TIMES, memory_order_relaxed);
        }
        return rc;
}

static int read_data(RegionRead *read, size_t length, Reason *reterr) {
        bool more = read->offset + length < read->end;
        bool look = more && atomic_load_explicit(&read->chain->waits, memory_order_relaxed) == 0;
        Layer *layer;
        int rc = chain_layer(read->chain, read->extent->part, &layer, reterr);

        if (rc < 0)
                return rc;
        return look ? read_and_look(read, layer, length, reterr)
                    : layer_read(layer, read->to, length, read->offset, reterr);
}

/* Whether its disk was slow not long ago. Threads that count at once may count one too few. */
static bool is_waiting(Chain *chain) {
        int waits = atomic_load_explicit(&chain->waits, memory_order_relaxed);

        if (waits > 0)
                atomic_store_explicit(&chain->waits, waits - 1, memory_order_relaxed);
        return waits > 0;
}

static int read_region(RegionRead *read, Reason *reterr) {
        while (read->offset < read->end) {
                size_t length = extent_end(read, read->extent) - read->offset;
                int rc = 0;

                if (read->extent->state == EXTENT_ZERO)
                        memset(read->to, 0, length);
                else if (read->extent->state == EXTENT_DATA)
                        rc = read_data(read, length, reterr);
                else
                        rc = explain(read->chain, read->extent->part, read->to, length, read->offset, reterr);
                if (rc < 0)
                        return rc;
                read->to += length;
                read->offset += length;
                read->extent++;
        }
        return 0;
}

int chain_read(Chain *chain, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        RegionRead read = { .chain = chain, .offset = offset, .to = buffer };

        if (offset > chain->size || length > chain->size - offset)
                return fail(reterr, -EINVAL, "%zu bytes at %" PRIu64 " are past the disk's end", length, offset);
        while (read.offset < offset + length) {
                CLEANUP(cache_releasep) CacheEntry *entry = NULL;
                int rc = chain_region(chain, read.offset, offset + length - read.offset, &entry, reterr);

                if (rc < 0)
                        return rc;
                read.region = cache_value(entry);
                read.end = min_u64(offset + length, read.region->start + read.region->length);
                read.extent = region_find(read.region, read.offset);
                if (extent_end(&read, read.extent) < read.end && is_waiting(chain))
                        expect_all(&read);
                rc = read_region(&read, reterr);
                if (rc < 0)
                        return rc;
        }
        return 0;
}
