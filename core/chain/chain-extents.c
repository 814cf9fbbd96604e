#include "chain/chain-private.h"

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "util/bytes.h"
#include "util/patience.h"

static int region_extents(void *context, size_t part, uint64_t start, uint64_t length, ExtentMap **ret) {
        Layer *layer;
        int rc = chain_layer(context, part, &layer, NULL);

        return rc < 0 ? rc : layer_extents(layer, start, length, ret, NULL);
}

static uint64_t region_limit(void *context, size_t part) {
        const Chain *chain = context;

        return chain->parts[part].limit;
}

static int flatten(Chain *chain, uint64_t start, uint32_t size, size_t limit, Region **ret) {
        RegionSource source = { chain->part_count, region_extents, region_limit, chain };

        return region_flatten(&source, start, (uint32_t) min_u64(size, chain->size - start), limit, ret);
}

static int fail_flatten(int rc, Reason *reterr) {
        if (rc == -EAGAIN || rc == -EBUSY)
                return fail(reterr, rc, "it is not unpacked as far as that yet");
        return fail_oom(reterr);
}

static int load_region(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        Region *region;
        int rc = flatten(context, key.item * REGION_SIZE, REGION_SIZE, SIZE_MAX, &region);

        if (rc < 0)
                return fail_flatten(rc, reterr);
        *ret_cost = sizeof *region + region->count * sizeof *region->extents;
        *ret = region;
        return 0;
}

/* Without extents where there are too many, or something could not be told: the regions in it have to be asked then. */
static int load_wide_region(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        Region *region = NULL;
        int rc;

        rc = flatten(context, (key.item & ~WIDE_ITEMS) * REGION_WIDE_SIZE, REGION_WIDE_SIZE, REGION_WIDE_EXTENTS, &region);
        if (rc == -EAGAIN || rc == -EBUSY)
                return fail_flatten(rc, reterr);
        if (rc < 0 || region->damaged) {
                free(region);
                region = rc < 0 && rc != -E2BIG ? NULL : calloc(1, sizeof *region);
        }
        if (!region)
                return fail_oom(reterr);
        *ret_cost = sizeof *region + region->count * sizeof *region->extents;
        *ret = region;
        return 0;
}

static const CacheLoader region_loader = { load_region, free };
static const CacheLoader wide_region_loader = { load_wide_region, free };

int chain_region(Chain *chain, uint64_t offset, CacheEntry **ret, Reason *reterr) {
        static const struct timespec interval = { .tv_nsec = PATIENCE_INTERVAL / 2 * 1000000L };
        CacheKey key = { chain->owner, offset / REGION_SIZE };
        int rc;

        /* Out here, where nobody waits for this thread. */
        while ((rc = cache_get(layer_store_memory(chain->store), key, &region_loader, chain, ret, reterr)) == -EAGAIN &&
               !patience_is_over())
                nanosleep(&interval, NULL);
        if (rc >= 0 && ((const Region *) cache_value(*ret))->damaged)
                cache_drop(*ret);
        return rc;
}

static ChainExtent make_extent(const Chain *chain, uint64_t region_start, const RegionExtent *extent) {
        return (ChainExtent) {
                .start = region_start + extent->start,
                .length = extent->length,
                .state = (ExtentState) extent->state,
                .point = extent->part == REGION_LOST ? NULL : chain->parts[extent->part].point,
        };
}

int chain_extent_at(Chain *chain, uint64_t offset, ChainExtent *ret, Reason *reterr) {
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        int rc;

        assert(offset < chain->size);
        rc = chain_region(chain, offset, &entry, reterr);
        if (rc < 0)
                return rc;
        *ret = make_extent(chain, round_down(offset, REGION_SIZE),
                           region_find(cache_value(entry), (uint32_t) (offset % REGION_SIZE)));
        return 0;
}

int chain_wide_extent_at(Chain *chain, uint64_t offset, ChainExtent *ret, Reason *reterr) {
        CacheKey key = { chain->owner, WIDE_ITEMS | offset / REGION_WIDE_SIZE };
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        const Region *region;
        int rc;

        rc = cache_get(layer_store_memory(chain->store), key, &wide_region_loader, chain, &entry, reterr);
        if (rc == -EAGAIN)
                return chain_extent_at(chain, offset, ret, reterr);
        if (rc < 0)
                return rc;
        region = cache_value(entry);
        if (region->count == 0)
                return chain_extent_at(chain, offset, ret, reterr);
        *ret = make_extent(chain, round_down(offset, REGION_WIDE_SIZE),
                           region_find(region, (uint32_t) (offset % REGION_WIDE_SIZE)));
        return 0;
}

int chain_next_extent(Chain *chain, uint64_t offset, ChainExtent *ret, Reason *reterr) {
        ChainExtent extent, next;
        int rc = chain_wide_extent_at(chain, offset, &extent, reterr);

        while (rc >= 0 && extent.start + extent.length < chain->size) {
                rc = chain_wide_extent_at(chain, extent.start + extent.length, &next, reterr);
                /* Several layers of one point have the same name at different places. */
                if (rc < 0 || next.state != extent.state || !next.point != !extent.point ||
                    (next.point && strcmp(next.point, extent.point) != 0))
                        break;
                extent.length += next.length;
        }
        if (rc < 0)
                return rc;
        *ret = extent;
        return 0;
}

int chain_is_zero(Chain *chain, uint64_t offset, size_t length) {
        uint64_t end = offset + length;

        while (offset < end) {
                ChainExtent extent;
                int rc = chain_extent_at(chain, offset, &extent, NULL);

                if (rc < 0)
                        return rc;
                if (extent.state != EXTENT_ZERO)
                        return 0;
                offset = extent.start + extent.length;
        }
        return 1;
}
