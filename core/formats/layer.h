/* core/formats/layer.h - one stored layer of one disk, whatever format it is in.
 *
 * The door to all formats: it checks ranges once, for each of them. A layer is immutable.
 * Threads: any number of threads may use a layer at once; references are counted atomically. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "extent/extent-map.h"
#include "formats/byte-store.h"
#include "formats/disk-cache.h"
#include "util/cache.h"
#include "util/cleanup.h"
#include "util/reason.h"

typedef struct Layer Layer;
typedef struct LayerStore LayerStore;

typedef struct LayerOps {
        /* Appends the states within [start, start + length) to map, clipped to it; absent ranges are left out.
         * What a damaged index cannot tell is appended as unreadable: 1 is returned then, else 0, or an error where
         * nothing can be told. -EAGAIN: ask again soon, it is being found out; -EBUSY: it would take minutes and was not
         * begun (util/patience.h): it does not wait for such things. The range lies within the disk. Any thread. */
        int (*extents)(Layer *layer, uint64_t start, uint64_t length, ExtentMap *map, Reason *reterr);
        /* Reads a range. -EIO where not all of it is data, or what is stored is damaged. Any thread. */
        int (*read)(Layer *layer, void *buffer, size_t length, uint64_t offset, Reason *reterr);
        void (*free)(Layer *layer);
        /* The range is about to be read: may begin to fetch what of it is data, and returns soon. Any thread. NULL: it
         * does not. */
        void (*expect)(Layer *layer, uint64_t start, uint64_t length);
} LayerOps;

/* The extents of a layer without holes. */
int layer_extents_data(Layer *layer, uint64_t start, uint64_t length, ExtentMap *map, Reason *reterr);

/* Implementations embed this as their first member; the door fills in what is below ops. */
struct Layer {
        const LayerOps *ops;
        uint64_t disk_size; /* bytes */

        LayerStore *store;
        char *path, *member;
        uint64_t length, seal;
        size_t references;  /* this and the next: with the store's lock held */
        Layer *next;        /* of the open layers */
};

/* Where a layer lies and what it must be, as a manifest says. */
typedef struct LayerLocation {
        const char *format; /* of format.h's table */
        const char *path;   /* below the root of the store */
        const char *member; /* which thing in the file, in the format's own words (a device, a snapshot); NULL: all */
        uint64_t length;    /* bytes of the file */
        uint64_t seal;      /* native: the checksum over its index; see native/layout.h. Others: found_seal() */
} LayerLocation;

/* What the layers of one repository share: the root of its files, the caches, and the table of open layers, so that a
 * thousand points that are open have each of their layers once. root_fd is borrowed. */
int layer_store_new(int root_fd, size_t memory_bytes, LayerStore **ret);
/* One of another root that uses the caches of a store, which has to outlive it. */
int layer_store_new_beside(int root_fd, LayerStore *other, LayerStore **ret);
/* Before the first layer is opened: as disk_cache_new(). */
int layer_store_set_disk(LayerStore *store, const char *path, uint64_t limit);
/* Told of what takes long and is made by the side, when somebody waits for it and when nobody does: `done` of `total` bytes
 * of the file at path, once they are equal it is over; with failure it has failed. From any thread; set before layers are
 * opened. */
typedef struct LayerListener {
        void (*tell)(void *context, const char *path, uint64_t done, uint64_t total, const Reason *failure);
        void *context;
} LayerListener;
void layer_store_set_listener(LayerStore *store, LayerListener listener);
void layer_store_tell(const LayerStore *store, const char *path, uint64_t done, uint64_t total, const Reason *failure);

LayerStore *layer_store_free(LayerStore *store); /* always NULL; no layer may be left */
DEFINE_CLEANUP(LayerStore, layer_store_free)

int layer_store_root(const LayerStore *store);
Cache *layer_store_files(const LayerStore *store);  /* of descriptors; cost 1 each */
Cache *layer_store_memory(const LayerStore *store); /* of index pages, blocks, chains, regions; cost in bytes */
/* The file of a location that found_seal() sealed, as file_store_open_found() opens it. */
int layer_store_open_file(LayerStore *store, const LayerLocation *location, ByteStore **ret, Reason *reterr);
DiskCache *layer_store_disk(const LayerStore *store); /* of what takes long to make again */
uint64_t layer_store_owner(const LayerStore *store); /* in those caches, of what belongs to the store as a whole */
uint64_t layer_store_archives(const LayerStore *store); /* the same, of archives that several layers are in */
uint64_t layer_store_heads(const LayerStore *store); /* and of what was seen of files when they were found */

/* -EIO or -EBADMSG where the file is missing, damaged or another one than the location says; -ENOTSUP where it
 * needs a newer version. A layer that is open already is shared. store must outlive it. */
int layer_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr);
Layer *layer_unref(Layer *layer); /* always NULL */
DEFINE_CLEANUP(Layer, layer_unref)

/* How far it is where all of the file is just being unpacked before it can be read: done of total bytes. -ENOENT: it is not.
 * Opens no layer, and waits for nothing. */
int layer_progress(LayerStore *store, const LayerLocation *location, uint64_t *ret_done, uint64_t *ret_total);

/* Compares all bytes with what their writer has noted of them, where a format has more of that than reading checks anyway:
 * it takes as long as reading the file. -EBADMSG where they do not fit; 0 also where nothing is noted. */
typedef struct LayerCheck {
        int (*progress)(void *context, uint64_t done, uint64_t total); /* bytes of the file; < 0 ends it. May be NULL */
        void *context;
} LayerCheck;
int layer_check(LayerStore *store, const LayerLocation *location, const LayerCheck *check, Reason *reterr);

uint64_t layer_disk_size(const Layer *layer);

/* What the layer has in [start, start + length), which must lie within the disk. The caller frees *ret, a map of
 * the whole disk that has extents in that range only. 1 where some of it cannot be told, as the index is damaged: that is
 * unreadable in the map, and layer_read() has the words. */
int layer_extents(Layer *layer, uint64_t start, uint64_t length, ExtentMap **ret, Reason *reterr);
int layer_read(Layer *layer, void *buffer, size_t length, uint64_t offset, Reason *reterr);
/* A hint: the range, which is data, will be read soon. */
void layer_expect(Layer *layer, uint64_t start, uint64_t length);
/* As layer_read() where zeroes may be too: they are filled in. -EIO where some of it is neither. */
int layer_read_filled(Layer *layer, void *buffer, size_t length, uint64_t offset, Reason *reterr);
