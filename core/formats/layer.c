#include "formats/layer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>

#include "formats/format.h"
#include "util/bytes.h"

#define BUCKET_COUNT 4096 /* of the table of open layers */
#define OPEN_FILES_MAX 4096

struct LayerStore {
        int root_fd;
        Cache *open_files, *memory;
        LayerStore *lender; /* whose caches these are; NULL: its own */
        DiskCache *disk;
        LayerListener listener;
        uint64_t owner, archives, heads;
        pthread_mutex_t lock; /* of the table and the references in it; nothing else is locked within */
        Layer *open[BUCKET_COUNT];
};

/* What descriptors the rest of the process can spare. */
static size_t spare_files(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return 64;
        return (size_t) min_u64(OPEN_FILES_MAX, limit.rlim_cur / 2);
}

/* The kernel makes room for descriptors in steps, and in each it waits some milliseconds for all processors where a process
 * has threads. Here it has not, most often. */
static void make_room_for_files(int any_fd, size_t count) {
        int last = fcntl(any_fd, F_DUPFD_CLOEXEC, (int) count);

        close_fd(&last);
}

static LayerStore *store_alloc(int root_fd) {
        LayerStore *store = calloc(1, sizeof *store);

        if (!store)
                return NULL;
        store->root_fd = root_fd;
        store->owner = cache_new_owner();
        store->archives = cache_new_owner();
        store->heads = cache_new_owner();
        pthread_mutex_init(&store->lock, NULL);
        return store;
}

int layer_store_new(int root_fd, size_t memory_bytes, LayerStore **ret) {
        CLEANUP(layer_store_freep) LayerStore *store = store_alloc(root_fd);
        size_t files = spare_files();
        int rc;

        if (!store)
                return -ENOMEM;
        make_room_for_files(root_fd, files);
        rc = cache_new(files, &store->open_files);
        if (rc < 0)
                return rc;
        rc = cache_new(memory_bytes, &store->memory);
        if (rc < 0)
                return rc;
        rc = disk_cache_new(NULL, 0, &store->disk);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(store);
        return 0;
}

int layer_store_new_beside(int root_fd, LayerStore *other, LayerStore **ret) {
        LayerStore *store = store_alloc(root_fd);

        if (!store)
                return -ENOMEM;
        store->open_files = other->open_files;
        store->memory = other->memory;
        store->lender = other;
        *ret = store;
        return 0;
}

LayerStore *layer_store_free(LayerStore *store) {
        if (store) {
                if (store->lender) { /* chains that nobody uses any more, their layers, and what these shared */
                        cache_forget(store->memory, store->owner);
                        cache_forget(store->memory, store->archives);
                        cache_forget(store->memory, store->heads);
                } else {
                        cache_free(store->memory);
                        cache_free(store->open_files);
                        disk_cache_free(store->disk);
                }
                pthread_mutex_destroy(&store->lock);
        }
        free(store);
        return NULL;
}

int layer_store_set_disk(LayerStore *store, const char *path, uint64_t limit) {
        DiskCache *disk;

        if (disk_cache_new(path, limit, &disk) < 0)
                return -ENOMEM;
        disk_cache_free(store->disk);
        store->disk = disk;
        return 0;
}

void layer_store_set_listener(LayerStore *store, LayerListener listener) {
        store->listener = listener;
}

void layer_store_tell(const LayerStore *store, const char *path, uint64_t done, uint64_t total, const Reason *failure) {
        const LayerListener *listener = store->lender ? &store->lender->listener : &store->listener;

        if (listener->tell)
                listener->tell(listener->context, path, done, total, failure);
}

int layer_store_root(const LayerStore *store) {
        return store->root_fd;
}

Cache *layer_store_files(const LayerStore *store) {
        return store->open_files;
}

Cache *layer_store_memory(const LayerStore *store) {
        return store->memory;
}

int layer_store_open_file(LayerStore *store, const LayerLocation *location, ByteStore **ret, Reason *reterr) {
        CLEANUP(byte_store_freep) ByteStore *bytes = NULL;
        int rc = file_store_open_found(store->root_fd, location->path, location->seal, store->open_files, &bytes, reterr);

        if (rc < 0)
                return rc;
        if (byte_store_size(bytes) != location->length)
                return fail(reterr, -EIO, "%s has another length than it had", location->path);
        *ret = STEAL_PTR(bytes);
        return 0;
}

uint64_t layer_store_archives(const LayerStore *store) {
        return store->archives;
}

uint64_t layer_store_heads(const LayerStore *store) {
        return store->heads;
}

DiskCache *layer_store_disk(const LayerStore *store) {
        return store->lender ? store->lender->disk : store->disk;
}

uint64_t layer_store_owner(const LayerStore *store) {
        return store->owner;
}

static Layer **find_bucket(LayerStore *store, const char *path) {
        uint32_t hash = 2166136261u;

        for (const char *c = path; *c; c++)
                hash = (hash ^ (unsigned char) *c) * 16777619u;
        return &store->open[hash % BUCKET_COUNT];
}

static bool is_same_text(const char *a, const char *b) {
        return a == b || (a && b && strcmp(a, b) == 0);
}

/* A new reference to the layer where it is open. With the lock held. One that is wanted with another seal is another. */
static Layer *find_open(LayerStore *store, const LayerLocation *location) {
        Layer *layer = *find_bucket(store, location->path);

        while (layer && (layer->seal != location->seal || layer->length != location->length ||
                         strcmp(layer->path, location->path) != 0 || !is_same_text(layer->member, location->member)))
                layer = layer->next;
        if (layer)
                layer->references++;
        return layer;
}

static int open_anew(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr) {
        const Format *format = format_named(location->format);
        CLEANUP(freep) char *member = NULL;
        Layer *layer;
        char *path;
        int rc;

        if (!format)
                return fail(reterr, -ENOTSUP, "%s: unknown format \"%s\": a newer version may know it", location->path,
                            location->format);
        if (location->member) {
                member = strdup(location->member);
                if (!member)
                        return fail_oom(reterr);
        }
        rc = format->open(store, location, &layer, reterr);
        if (rc < 0)
                return rc;
        path = strdup(location->path);
        if (!path) {
                layer->ops->free(layer);
                return fail_oom(reterr);
        }
        layer->store = store;
        layer->path = path;
        layer->member = STEAL_PTR(member);
        layer->length = location->length;
        layer->seal = location->seal;
        layer->references = 1;
        *ret = layer;
        return 0;
}

static void layer_destroy(Layer *layer) {
        free(layer->path);
        free(layer->member);
        layer->ops->free(layer);
}

int layer_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr) {
        Layer *layer, *meanwhile, **bucket;
        int rc;

        pthread_mutex_lock(&store->lock);
        layer = find_open(store, location);
        pthread_mutex_unlock(&store->lock);
        if (layer) {
                *ret = layer;
                return 0;
        }

        rc = open_anew(store, location, &layer, reterr);
        if (rc < 0)
                return rc;
        pthread_mutex_lock(&store->lock);
        meanwhile = find_open(store, location);
        if (!meanwhile) {
                bucket = find_bucket(store, location->path);
                layer->next = *bucket;
                *bucket = layer;
        }
        pthread_mutex_unlock(&store->lock);
        if (meanwhile)
                layer_destroy(layer);
        *ret = meanwhile ?: layer;
        return 0;
}

Layer *layer_unref(Layer *layer) {
        LayerStore *store;
        bool last;

        if (!layer)
                return NULL;
        store = layer->store;
        pthread_mutex_lock(&store->lock);
        last = --layer->references == 0;
        if (last) {
                Layer **link = find_bucket(store, layer->path);

                while (*link != layer)
                        link = &(*link)->next;
                *link = layer->next;
        }
        pthread_mutex_unlock(&store->lock);
        if (last)
                layer_destroy(layer);
        return NULL;
}

int layer_progress(LayerStore *store, const LayerLocation *location, uint64_t *ret_done, uint64_t *ret_total) {
        const Format *format = format_named(location->format);

        return format && format->progress ? format->progress(store, location, ret_done, ret_total) : -ENOENT;
}

int layer_check(LayerStore *store, const LayerLocation *location, const LayerCheck *check, Reason *reterr) {
        const Format *format = format_named(location->format);

        return format && format->check ? format->check(store, location, check, reterr) : 0;
}

uint64_t layer_disk_size(const Layer *layer) {
        return layer->disk_size;
}

int layer_extents_data(Layer *layer, uint64_t start, uint64_t length, ExtentMap *map, Reason *reterr) {
        return extent_map_add(map, start, length, EXTENT_DATA) < 0 ? fail_oom(reterr) : 0;
}

static int check_range(const Layer *layer, uint64_t start, uint64_t length, Reason *reterr) {
        if (start > layer->disk_size || length > layer->disk_size - start)
                return fail(reterr, -EINVAL, "%s: %" PRIu64 " bytes at %" PRIu64 " are past the disk's end", layer->path,
                            length, start);
        return 0;
}

int layer_extents(Layer *layer, uint64_t start, uint64_t length, ExtentMap **ret, Reason *reterr) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        int rc = check_range(layer, start, length, reterr);

        if (rc < 0)
                return rc;
        if (extent_map_new(layer->disk_size, &map) < 0)
                return fail_oom(reterr);
        rc = length > 0 ? layer->ops->extents(layer, start, length, map, reterr) : 0;
        if (rc < 0)
                return rc;
        if (extent_map_finish(map) < 0)
                return fail(reterr, -EBADMSG, "%s: its extents overlap", layer->path);
        *ret = STEAL_PTR(map);
        return rc;
}

int layer_read(Layer *layer, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        int rc = check_range(layer, offset, length, reterr);

        if (rc < 0)
                return rc;
        return length > 0 ? layer->ops->read(layer, buffer, length, offset, reterr) : 0;
}

void layer_expect(Layer *layer, uint64_t start, uint64_t length) {
        if (layer->ops->expect && check_range(layer, start, length, NULL) == 0 && length > 0)
                layer->ops->expect(layer, start, length);
}

int layer_read_filled(Layer *layer, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        uint64_t at = offset;
        int rc = layer_extents(layer, offset, length, &map, reterr);

        for (size_t i = 0; rc >= 0 && i < extent_map_count(map); i++) {
                const Extent *extent = extent_map_get(map, i);

                if (extent->start != at)
                        break;
                if (extent->state == EXTENT_ZERO)
                        memset((char *) buffer + (at - offset), 0, extent->length);
                else
                        rc = layer_read(layer, (char *) buffer + (at - offset), extent->length, at, reterr);
                at += extent->length;
        }
        if (rc < 0)
                return rc;
        if (at != offset + length)
                return fail(reterr, -EIO, "%s has nothing at %" PRIu64, layer->path, at);
        return 0;
}
