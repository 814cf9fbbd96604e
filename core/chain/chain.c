#include "chain/chain.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "chain/ancestry.h"
#include "chain/region.h"
#include "codec/checksum.h"
#include "util/bytes.h"
#include "util/patience.h"

#define WIDE_ITEMS (UINT64_C(1) << 63) /* cache items of wide regions have this bit; those of others are their numbers */
#define MADE_ITEMS (UINT64_C(1) << 62) /* and those of what others made of the chain this one */
#define LAYERS_MAX 1000000 /* of a chain: more than a century of one a half hour */

/* A layer of the chain, opened when a region first needs it. */
typedef struct ChainPart {
        char point[POINT_NAME_MAX];
        uint64_t limit; /* the smallest disk size from the newest part to this one */
        char *format, *path, *member;
        uint64_t length, seal;
        _Atomic(Layer *) layer;
} ChainPart;

struct Chain {
        _Atomic(CacheEntry *) entry; /* the chain itself, in the store's memory; its references are the chain's */
        LayerStore *store;
        uint64_t owner;    /* of its regions */
        uint64_t size;
        char *vm, *point, *disk, *capture;
        char *damage;      /* or NULL */
        char *backing;     /* what has that which was left out of the layers; or NULL */
        ChainPart *parts;  /* newest first */
        size_t part_count, part_capacity;
};

static void chain_destroy(void *value) {
        Chain *chain = value;

        cache_forget(layer_store_memory(chain->store), chain->owner);
        for (size_t i = 0; i < chain->part_count; i++) {
                layer_unref(atomic_load(&chain->parts[i].layer));
                free(chain->parts[i].format);
                free(chain->parts[i].path);
                free(chain->parts[i].member);
        }
        free(chain->parts);
        free(chain->vm);
        free(chain->point);
        free(chain->disk);
        free(chain->capture);
        free(chain->damage);
        free(chain->backing);
        free(chain);
}

static void chain_destroyp(Chain **chain) {
        if (*chain)
                chain_destroy(*chain);
}

static int add_part(Chain *chain, const char *point, uint64_t limit, const LayerLocation *location, Reason *reterr) {
        ChainPart *part;

        if (chain->part_count == LAYERS_MAX)
                return fail(reterr, -EBADMSG, "the chain has too many layers");
        if (chain->part_count == chain->part_capacity) {
                size_t capacity = chain->part_capacity ? chain->part_capacity * 2 : 8;
                ChainPart *grown = reallocarray(chain->parts, capacity, sizeof *grown);

                if (!grown)
                        return fail_oom(reterr);
                chain->parts = grown;
                chain->part_capacity = capacity;
        }
        part = &chain->parts[chain->part_count++];
        *part = (ChainPart) {
                .limit = limit,
                .format = strdup(location->format),
                .path = strdup(location->path),
                .member = location->member ? strdup(location->member) : NULL,
                .length = location->length,
                .seal = location->seal,
        };
        snprintf(part->point, sizeof part->point, "%s", point);
        return part->format && part->path && (part->member || !location->member) ? 0 : fail_oom(reterr);
}

static int add_layer(Chain *chain, const Manifest *manifest, const ManifestLayer *layer, uint64_t limit, Reason *reterr) {
        LayerLocation location;
        int rc;

        rc = manifest_layer_location(manifest, layer, &location, reterr);
        if (rc < 0)
                return rc;
        rc = add_part(chain, manifest->name, limit, &location, reterr);
        free((char *) location.path);
        return rc;
}

/* Adds the layers of one point. 1 where the parent has to be asked for the rest, 0 where all is there; -EBADMSG where no
 * parent can tell, with what layers there are. */
static int add_point(Chain *chain, const Manifest *manifest, const char *disk_name, uint64_t *limit, Reason *reterr) {
        const ManifestDisk *disk = manifest_find_disk(manifest, disk_name);

        if (!disk)
                return fail(reterr, -EBADMSG, "point %s has no disk %s", manifest->name, disk_name);
        *limit = min_u64(*limit, disk->size);
        for (size_t i = 0; i < disk->layer_count; i++) {
                int rc = add_layer(chain, manifest, &disk->layers[i], *limit, reterr);

                if (rc < 0)
                        return rc;
        }
        if (disk->problem)
                return fail(reterr, -EBADMSG, "%s", disk->problem);
        return disk->kind != POINT_FULL;
}

/* The same for the same disk of the same capture, and for no other. */
static int chain_key(Vm *vm, const Manifest *manifest, const char *disk, CacheKey *ret) {
        CLEANUP(freep) char *text = NULL;
        int length = asprintf(&text, "%s/%s/%s/%s", vm_name(vm), manifest->name, manifest->capture, disk);

        if (length < 0)
                return -ENOMEM;
        *ret = (CacheKey) { layer_store_owner(vm_layers(vm)), checksum(text, (size_t) length) };
        return 0;
}

/* Whether it is that disk's, and not another's whose key is the same by chance. */
static bool is_chain_of(const Chain *chain, Vm *vm, const Manifest *manifest, const char *disk) {
        return strcmp(chain->vm, vm_name(vm)) == 0 && strcmp(chain->point, manifest->name) == 0 &&
               strcmp(chain->disk, disk) == 0 && strcmp(chain->capture, manifest->capture) == 0;
}

/* Adds all that the chain of an ancestor has, where that is in the cache: who opens one point after the other has every
 * manifest read once. 0: all is there; 1: it is not in the cache. */
static int add_known(Chain *chain, Vm *vm, const Manifest *manifest, const char *disk, uint64_t limit, Reason *reterr) {
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        const Chain *known;
        CacheKey key;

        if (chain_key(vm, manifest, disk, &key) < 0)
                return fail_oom(reterr);
        if (!cache_find(layer_store_memory(chain->store), key, &entry))
                return 1;
        known = cache_value(entry);
        if (!is_chain_of(known, vm, manifest, disk) || known->damage)
                return 1;
        for (size_t i = 0; i < known->part_count; i++) {
                const ChainPart *part = &known->parts[i];
                LayerLocation location = { part->format, part->path, part->member, part->length, part->seal };
                int rc = add_part(chain, part->point, min_u64(limit, part->limit), &location, reterr);

                if (rc < 0)
                        return rc;
        }
        return 0;
}

static int set_damage(Chain *chain, const Reason *reason, Reason *reterr) {
        chain->damage = strdup(reason->text);
        return chain->damage ? 0 : fail_oom(reterr);
}

/* Follows the parents. What is lost of them is damage, no failure. */
static int add_ancestors(Chain *chain, Vm *vm, const Manifest *newest, const char *disk, uint64_t limit, Reason *reterr) {
        CLEANUP(ancestry_freep) Ancestry *ancestry = NULL;
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        const Manifest *child = newest;
        Reason reason = REASON_INIT;
        int rc = 1;

        if (ancestry_new(vm, &ancestry) < 0)
                return fail_oom(reterr);

        while (rc == 1) {
                Manifest *parent = NULL;

                /* Names sort by age: so no chain can lead back into itself. */
                if (!child->parent)
                        rc = fail(&reason, -EBADMSG, "point %s is incremental and has no parent", child->name);
                else if (strcmp(child->parent, child->name) >= 0)
                        rc = fail(&reason, -EBADMSG, "point %s is older than its parent %s", child->name, child->parent);
                else
                        rc = ancestry_read(ancestry, child->parent, &parent, &reason);
                if (rc < 0)
                        break;
                manifest_unref(manifest);
                child = manifest = parent;
                rc = add_known(chain, vm, manifest, disk, limit, &reason);
                if (rc == 1)
                        rc = add_point(chain, manifest, disk, &limit, &reason);
        }
        if (rc == -ENOMEM)
                return fail_oom(reterr);
        return rc < 0 ? set_damage(chain, &reason, reterr) : 0;
}

typedef struct ChainRequest {
        Vm *vm;
        const Manifest *manifest;
        const char *disk;
} ChainRequest;

static int load_chain(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        const ChainRequest *request = context;
        const ManifestDisk *disk = manifest_find_disk(request->manifest, request->disk);
        CLEANUP(chain_destroyp) Chain *chain = calloc(1, sizeof *chain);
        uint64_t limit = UINT64_MAX;
        Reason reason = REASON_INIT;
        int rc;

        if (!chain)
                return fail_oom(reterr);
        chain->store = vm_layers(request->vm);
        chain->owner = cache_new_owner();
        chain->size = disk->size;
        chain->vm = strdup(vm_name(request->vm));
        chain->point = strdup(request->manifest->name);
        chain->disk = strdup(request->disk);
        chain->capture = strdup(request->manifest->capture);
        chain->backing = disk->backing ? strdup(disk->backing) : NULL;
        if (!chain->vm || !chain->point || !chain->disk || !chain->capture || (disk->backing && !chain->backing))
                return fail_oom(reterr);
        rc = add_point(chain, request->manifest, request->disk, &limit, &reason);
        if (rc > 0)
                rc = add_ancestors(chain, request->vm, request->manifest, request->disk, limit, reterr);
        else if (rc == -EBADMSG)
                rc = set_damage(chain, &reason, reterr);
        else if (rc < 0)
                return fail_oom(reterr);
        if (rc < 0)
                return rc;
        *ret_cost = sizeof *chain + chain->part_capacity * sizeof *chain->parts + chain->part_count * 100;
        *ret = STEAL_PTR(chain);
        return 0;
}

static const CacheLoader chain_loader = { load_chain, chain_destroy };

int chain_open(Vm *vm, const char *point, const char *disk, Chain **ret, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        ChainRequest request = { .vm = vm, .disk = disk };
        CacheEntry *entry;
        CacheKey key;
        Chain *chain;
        int rc;

        rc = manifest_read(vm, point, &manifest, reterr);
        if (rc < 0)
                return rc;
        if (!manifest_find_disk(manifest, disk))
                return fail(reterr, -ENOENT, "%s/%s has no disk %s", vm_name(vm), point, disk);
        request.manifest = manifest;
        if (chain_key(vm, manifest, disk, &key) < 0)
                return fail_oom(reterr);
        rc = cache_get(layer_store_memory(vm_layers(vm)), key, &chain_loader, &request, &entry,
                       reterr);
        if (rc < 0)
                return rc;
        chain = cache_value(entry);
        if (!is_chain_of(chain, vm, manifest, disk)) {
                cache_release(entry);
                return fail(reterr, -EIO, "%s/%s/%s cannot be told from another disk", vm_name(vm), point, disk);
        }
        atomic_store_explicit(&chain->entry, entry, memory_order_relaxed);
        if (chain->damage) /* may be mended by next time */
                cache_drop(entry);
        *ret = chain;
        return 0;
}

Chain *chain_unref(Chain *chain) {
        if (chain)
                cache_release(atomic_load_explicit(&chain->entry, memory_order_relaxed));
        return NULL;
}

uint64_t chain_size(const Chain *chain) {
        return chain->size;
}

size_t chain_layer_count(const Chain *chain) {
        return chain->part_count;
}

bool chain_is_same_disk(const Chain *a, const Chain *b) {
        return a->store == b->store && strcmp(a->vm, b->vm) == 0 && strcmp(a->disk, b->disk) == 0;
}

const char *chain_damage(const Chain *chain) {
        return chain->damage;
}

/* A layer that cannot be opened is tried again by whoever needs it next: the server may be back then. */
static int open_part(Chain *chain, size_t index, Layer **ret, Reason *reterr) {
        ChainPart *part = &chain->parts[index];
        LayerLocation location = { part->format, part->path, part->member, part->length, part->seal };
        Layer *layer = atomic_load_explicit(&part->layer, memory_order_acquire), *opened;
        int rc;

        if (!layer) {
                rc = layer_open(chain->store, &location, &opened, reterr);
                if (rc < 0)
                        return rc;
                if (atomic_compare_exchange_strong(&part->layer, &layer, opened))
                        layer = opened;
                else
                        layer_unref(opened); /* another thread was first */
        }
        *ret = layer;
        return 0;
}

static int region_extents(void *context, size_t part, uint64_t start, uint64_t length, ExtentMap **ret) {
        Layer *layer;
        int rc = open_part(context, part, &layer, NULL);

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

static int get_region(Chain *chain, uint64_t offset, CacheEntry **ret, Reason *reterr) {
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
        rc = get_region(chain, offset, &entry, reterr);
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

/* The words for a range that cannot be read; never succeeds. */
static int explain(Chain *chain, uint32_t index, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        Layer *layer;
        int rc;

        if (index == REGION_LOST && !chain->damage && chain->backing)
                return fail(reterr, -EIO, "%" PRIu64 " of the disk was left out: its backing file %s has it", offset,
                            chain->backing);
        if (index == REGION_LOST)
                return fail(reterr, -EIO, "%" PRIu64 " of the disk is in no layer: %s", offset,
                            chain->damage ?: "the chain is incomplete");
        rc = open_part(chain, index, &layer, reterr);
        if (rc >= 0)
                rc = layer_read(layer, buffer, length, offset, reterr);
        if (rc >= 0)
                return fail(reterr, -EIO, "%s could not be read at %" PRIu64 ", and now can", chain->parts[index].path,
                            offset);
        return rc == -ENOMEM ? rc : -EIO;
}

int chain_read(Chain *chain, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        unsigned char *to = buffer;

        if (offset > chain->size || length > chain->size - offset)
                return fail(reterr, -EINVAL, "%zu bytes at %" PRIu64 " are past the disk's end", length, offset);
        while (length > 0) {
                CLEANUP(cache_releasep) CacheEntry *entry = NULL;
                uint64_t region_start = round_down(offset, REGION_SIZE);
                const RegionExtent *extent;
                uint64_t region_left;
                int rc = get_region(chain, offset, &entry, reterr);

                if (rc < 0)
                        return rc;
                region_left = min_u64(length, region_start + REGION_SIZE - offset);
                extent = region_find(cache_value(entry), (uint32_t) (offset - region_start));
                for (; region_left > 0; extent++) {
                        size_t part = min_u64(region_left, region_start + extent->start + extent->length - offset);
                        Layer *layer = NULL;

                        if (extent->state == EXTENT_ZERO)
                                memset(to, 0, part);
                        else if (extent->state == EXTENT_DATA)
                                rc = open_part(chain, extent->part, &layer, reterr);
                        else
                                rc = explain(chain, extent->part, to, part, offset, reterr);
                        if (rc >= 0 && extent->state == EXTENT_DATA)
                                rc = layer_read(layer, to, part, offset, reterr);
                        if (rc < 0)
                                return rc;
                        to += part;
                        offset += part;
                        length -= part;
                        region_left -= part;
                }
        }
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

int64_t chain_seek(Chain *chain, uint64_t offset, int whence) {
        if (offset >= chain->size)
                return -ENXIO;
        while (offset < chain->size) {
                ChainExtent extent;
                int rc = chain_wide_extent_at(chain, offset, &extent, NULL);

                if (rc < 0)
                        return rc;
                if ((extent.state == EXTENT_ZERO) == (whence == SEEK_HOLE))
                        return (int64_t) offset;
                offset = extent.start + extent.length;
        }
        /* There is a hole at the end of every file, as lseek(2) has it. */
        return whence == SEEK_HOLE ? (int64_t) chain->size : -ENXIO;
}

int chain_get_made(Chain *chain, uint32_t kind, const CacheLoader *loader, void *context, CacheEntry **ret, Reason *reterr) {
        CacheKey key = { chain->owner, MADE_ITEMS | kind };

        return cache_get(layer_store_memory(chain->store), key, loader, context, ret, reterr);
}
