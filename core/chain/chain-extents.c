#include "chain/chain-private.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "util/bytes.h"
#include "util/patience.h"

#define SHORT_EXTENT (64u << 10) /* bytes: how much is told where nobody asks for more than an extent */

static int region_extents(void *context, size_t part, uint64_t start, uint64_t length, ExtentMap **ret) {
        Layer *layer;
        int rc = chain_layer(context, part, &layer, NULL);

        return rc < 0 ? rc : layer_extents(layer, start, length, ret, NULL);
}

static uint64_t region_limit(void *context, size_t part) {
        const Chain *chain = context;

        return chain->parts[part].limit;
}

/* What is to be flattened: within the disk. */
typedef struct RegionRequest {
        Chain *chain;
        uint64_t start;
        uint32_t length;
        size_t limit; /* of extents */
} RegionRequest;

/* A region of a grid. */
static RegionRequest request_of(Chain *chain, uint64_t offset, uint32_t size, size_t limit) {
        uint64_t start = round_down(offset, size);

        return (RegionRequest) { chain, start, (uint32_t) min_u64(size, chain->size - start), limit };
}

static int flatten(const RegionRequest *request, Region **ret) {
        Chain *chain = request->chain;
        RegionSource source = { chain->part_count, region_extents, region_limit, chain };

        return region_flatten(&source, request->start, request->length, request->limit, ret);
}

static int fail_flatten(int rc, Reason *reterr) {
        if (rc == -EAGAIN || rc == -EBUSY)
                return fail(reterr, rc, "it is not unpacked as far as that yet");
        return fail_oom(reterr);
}

static int load_region(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        Region *region;
        int rc = flatten(context, &region);

        if (rc < 0)
                return fail_flatten(rc, reterr);
        *ret_cost = region_cost(region);
        *ret = region;
        return 0;
}

/* Without extents where there are too many, or something could not be told: the regions in it have to be asked then. */
static int load_wide_region(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        Region *region = NULL;
        int rc;

        rc = flatten(context, &region);
        if (rc == -EAGAIN || rc == -EBUSY)
                return fail_flatten(rc, reterr);
        if (rc < 0 || region->damaged) {
                free(region);
                region = rc < 0 && rc != -E2BIG ? NULL : calloc(1, sizeof *region);
        }
        if (!region)
                return fail_oom(reterr);
        *ret_cost = region_cost(region);
        *ret = region;
        return 0;
}

static const CacheLoader region_loader = { load_region, free };
static const CacheLoader wide_region_loader = { load_wide_region, free };

static CacheKey wide_key(const Chain *chain, uint64_t offset) {
        return (CacheKey) { chain->owner, WIDE_ITEMS | offset / REGION_WIDE_SIZE };
}

static int get_wide_region(Chain *chain, uint64_t offset, CacheEntry **ret, Reason *reterr) {
        Cache *memory = layer_store_memory(chain->store);
        RegionRequest request = request_of(chain, offset, REGION_WIDE_SIZE, REGION_WIDE_EXTENTS);

        return cache_get(memory, wide_key(chain, offset), &wide_region_loader, &request, ret, reterr);
}

/* Without extents it is of no use to a reader. */
static bool is_of_use(const CacheEntry *entry) {
        return ((const Region *) cache_value(entry))->count > 0;
}

/* The wide region around offset where it is there, or where it may be made, and is of use. */
static bool find_wide_region(Chain *chain, uint64_t offset, bool make, CacheEntry **ret) {
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;

        if (make ? get_wide_region(chain, offset, &entry, NULL) < 0
                 : !cache_find(layer_store_memory(chain->store), wide_key(chain, offset), &entry))
                return false;
        if (!is_of_use(entry))
                return false;
        *ret = STEAL_PTR(entry);
        return true;
}

/* Whether something else of that wide region was wanted not long ago, and so more will be; notes what is wanted now. */
static bool is_frequent(Chain *chain, uint64_t offset) {
        bool noted = false;

        for (size_t i = 0; i < RECENT_COUNT; i++) {
                uint64_t recent = atomic_load_explicit(&chain->recent[i], memory_order_relaxed);

                if (recent == offset + 1)
                        noted = true;
                else if (recent > 0 && (recent - 1) / REGION_WIDE_SIZE == offset / REGION_WIDE_SIZE)
                        return true;
        }
        if (!noted)
                atomic_store_explicit(&chain->recent[atomic_fetch_add_explicit(&chain->recent_next, 1,
                                                                               memory_order_relaxed) % RECENT_COUNT],
                                      offset + 1, memory_order_relaxed);
        return false;
}

/* A wide region where more of it is wanted; where that has too much, or is damaged, the smaller ones that it is made of.
 * What is read first of a chain, and what is read here and there of a huge one, has a narrow one, which asks no layer
 * below those that have it. */
int chain_region(Chain *chain, uint64_t offset, uint64_t length, CacheEntry **ret, Reason *reterr) {
        static const struct timespec interval = { .tv_nsec = PATIENCE_INTERVAL / 2 * 1000000L };
        Cache *memory = layer_store_memory(chain->store);
        CacheKey key = { chain->owner, offset / REGION_SIZE };
        RegionRequest request = request_of(chain, offset, REGION_SIZE, SIZE_MAX);
        bool frequent;
        int rc;

        if (find_wide_region(chain, offset, false, ret) || cache_find(memory, key, ret))
                return 0;
        frequent = is_frequent(chain, offset);
        if (frequent && find_wide_region(chain, offset, true, ret))
                return 0;
        if (!frequent) {
                key.item = NARROW_ITEMS | offset;
                request = (RegionRequest) { chain, offset, (uint32_t) min_u64(length, REGION_SIZE), SIZE_MAX };
        }
        /* Out here, where nobody waits for this thread. */
        while ((rc = cache_get(memory, key, &region_loader, &request, ret, reterr)) == -EAGAIN && !patience_is_over())
                nanosleep(&interval, NULL);
        if (rc >= 0 && ((const Region *) cache_value(*ret))->damaged)
                cache_drop(*ret);
        return rc;
}

static ChainExtent make_extent(const Chain *chain, const Region *region, uint64_t offset) {
        const RegionExtent *extent = region_find(region, offset);

        return (ChainExtent) {
                .start = region->start + extent->start,
                .length = extent->length,
                .state = (ExtentState) extent->state,
                .point = extent->part == REGION_LOST ? NULL : chain->parts[extent->part].point,
        };
}

int chain_extent_at(Chain *chain, uint64_t offset, ChainExtent *ret, Reason *reterr) {
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        int rc;

        assert(offset < chain->size);
        rc = chain_region(chain, offset, min_u64(SHORT_EXTENT, chain->size - offset), &entry, reterr);
        if (rc < 0)
                return rc;
        *ret = make_extent(chain, cache_value(entry), offset);
        return 0;
}

int chain_wide_extent_at(Chain *chain, uint64_t offset, ChainExtent *ret, Reason *reterr) {
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        int rc = get_wide_region(chain, offset, &entry, reterr);

        if (rc == -EAGAIN)
                return chain_extent_at(chain, offset, ret, reterr);
        if (rc < 0)
                return rc;
        if (!is_of_use(entry))
                return chain_extent_at(chain, offset, ret, reterr);
        *ret = make_extent(chain, cache_value(entry), offset);
        return 0;
}

bool chain_extents_are_alike(const ChainExtent *a, const ChainExtent *b) {
        return a->state == b->state && !a->point == !b->point && (!a->point || strcmp(a->point, b->point) == 0);
}

int chain_next_extent(Chain *chain, uint64_t offset, ChainExtent *ret, Reason *reterr) {
        ChainExtent extent, next;
        int rc = chain_wide_extent_at(chain, offset, &extent, reterr);

        while (rc >= 0 && extent.start + extent.length < chain->size) {
                rc = chain_wide_extent_at(chain, extent.start + extent.length, &next, reterr);
                if (rc < 0 || !chain_extents_are_alike(&extent, &next))
                        break;
                extent.length = next.start + next.length - extent.start; /* the next may begin before this one ends */
        }
        if (rc < 0)
                return rc;
        *ret = extent;
        return 0;
}

int chain_is_zero(Chain *chain, uint64_t offset, size_t length) {
        uint64_t end = offset + length;

        while (offset < end) {
                CLEANUP(cache_releasep) CacheEntry *entry = NULL;
                int rc = chain_region(chain, offset, end - offset, &entry, NULL); /* who reads it next finds it */
                ChainExtent extent;

                if (rc < 0)
                        return rc;
                extent = make_extent(chain, cache_value(entry), offset);
                if (extent.state != EXTENT_ZERO)
                        return 0;
                offset = extent.start + extent.length;
        }
        return 1;
}
