#include "chain/chain-private.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "chain/ancestry.h"
#include "codec/checksum.h"
#include "util/bytes.h"
#include "util/text.h"

#define LAYERS_MAX 1000000 /* of a chain: more than a century of one a half hour */

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

        if (text_format(&text, "%s/%s/%s/%s", vm_name(vm), manifest->name, manifest->capture, disk) < 0)
                return -ENOMEM;
        *ret = (CacheKey) { layer_store_owner(vm_layers(vm)), checksum(text, strlen(text)) };
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
int chain_layer(Chain *chain, size_t index, Layer **ret, Reason *reterr) {
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

int chain_get_made(Chain *chain, uint32_t kind, const CacheLoader *loader, void *context, CacheEntry **ret, Reason *reterr) {
        CacheKey key = { chain->owner, MADE_ITEMS | kind };

        return cache_get(layer_store_memory(chain->store), key, loader, context, ret, reterr);
}
