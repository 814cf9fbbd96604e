/* core/formats/byte-store.h - where the bytes of a layer lie.
 *
 * The narrow interface through which layers are read (size, read at an offset) and written (append, commit), so
 * that something else than a directory can hold them. The door checks ranges for every implementation.
 * Threads: a store may be read by any number of threads at once; a sink belongs to one at a time. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "util/cache.h"
#include "util/cleanup.h"
#include "util/reason.h"

typedef struct ByteStore ByteStore;
typedef struct ByteSink ByteSink;

typedef struct ByteStoreOps {
        /* The range lies within the size. All bytes or a negative errno. Any thread, any number at once. */
        int (*read)(ByteStore *store, void *buffer, size_t length, uint64_t offset, Reason *reterr);
        /* lseek(2) with SEEK_DATA or SEEK_HOLE from an offset below the size; where nothing but holes follows: the size. Any
         * thread. NULL: what is a hole cannot be told. */
        int (*seek)(ByteStore *store, uint64_t offset, int whence, uint64_t *ret, Reason *reterr);
        void (*free)(ByteStore *store);
        /* The range, which lies within the size, is about to be read: may begin with it, and returns at once. Any thread.
         * NULL: that is of no use. */
        void (*expect)(ByteStore *store, uint64_t offset, uint64_t length);
} ByteStoreOps;

/* Implementations embed this as their first member. */
struct ByteStore {
        const ByteStoreOps *ops;
        uint64_t size; /* bytes; does not change */
        char *name;    /* for messages; owned */
};

typedef struct ByteSinkOps {
        int (*append)(ByteSink *sink, const void *buffer, size_t length, Reason *reterr);
        /* The content is on stable storage when it returns 0; its name is once the directory has been synced. */
        int (*commit)(ByteSink *sink, Reason *reterr);
        void (*free)(ByteSink *sink);                  /* without a commit before: what was written may vanish */
} ByteSinkOps;

struct ByteSink {
        const ByteSinkOps *ops;
        uint64_t size; /* bytes appended so far */
        char *name;    /* for messages; owned */
        /* Asked where bytes cannot be written, beginning with 0 times since some could: 0, and it goes on from where it
         * stopped, or the error to fail with. NULL: it fails. Set by whoever made the sink; called within its calls. */
        int (*stuck)(void *context, unsigned times, int rc, const char *words);
        void *stuck_context;
};

/* -EIO where the range passes the store's end. */
int byte_store_read(ByteStore *store, void *buffer, size_t length, uint64_t offset, Reason *reterr);
/* The first byte at or behind offset that is data, or lies in a hole (which reads as zeroes); the size where there is none.
 * whence: SEEK_DATA, SEEK_HOLE. Where it cannot be told all is data. */
int byte_store_seek(ByteStore *store, uint64_t offset, int whence, uint64_t *ret, Reason *reterr);
/* A hint: the range will be read soon. */
void byte_store_expect(ByteStore *store, uint64_t offset, uint64_t length);
uint64_t byte_store_size(const ByteStore *store);
const char *byte_store_name(const ByteStore *store);
ByteStore *byte_store_free(ByteStore *store); /* always NULL */
DEFINE_CLEANUP(ByteStore, byte_store_free)

int byte_sink_append(ByteSink *sink, const void *buffer, size_t length, Reason *reterr);
int byte_sink_commit(ByteSink *sink, Reason *reterr);
uint64_t byte_sink_size(const ByteSink *sink);
ByteSink *byte_sink_free(ByteSink *sink); /* always NULL */
DEFINE_CLEANUP(ByteSink, byte_sink_free)

/* A file below root_fd, which must outlive the store. The descriptor is kept in open_files (cost 1 a file) and
 * opened again where it has been dropped, so that chains of any length fit into RLIMIT_NOFILE. */
int file_store_open(int root_fd, const char *path, Cache *open_files, ByteStore **ret, Reason *reterr);

/* The same for a file that another tool may replace or change: each time it is opened it has to be the one that found_seal()
 * told from others, else reading is -EIO. */
int file_store_open_found(int root_fd, const char *path, uint64_t seal, Cache *open_files, ByteStore **ret, Reason *reterr);

/* Makes a new file (mode 0600; -EEXIST where there is one). It is written around the page cache, which the hypervisor needs
 * more; where the file system does not know how, pages are pushed to the disk and dropped from the cache as it goes. */
int file_sink_create(int root_fd, const char *path, ByteSink **ret, Reason *reterr);
