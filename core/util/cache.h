/* core/util/cache.h - a bounded store of things that cost something to make again.
 *
 * Used for decoded index pages, decompressed blocks, flattened regions and open files alike. A thing is found
 * by its key or made by the loader; two threads that miss the same key at once make it once. Things in use
 * (referenced) are never freed; the least recently used of the others go when the sum of costs passes the
 * capacity. A failed load is not remembered.
 * Threads: every function may be called from any thread. No lock is held while a loader or free runs, so a
 * loader may use the cache itself (for another key). */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"
#include "util/reason.h"

typedef struct Cache Cache;
typedef struct CacheEntry CacheEntry; /* a reference to one thing */

typedef struct CacheKey {
        uint64_t owner; /* from cache_new_owner() */
        uint64_t item;  /* the owner's own numbering */
} CacheKey;

typedef struct CacheLoader {
        /* Makes the thing: its cost in the cache's unit (bytes; files) goes to ret_cost. */
        int (*load)(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr);
        void (*free)(void *value);
} CacheLoader;

/* capacity: sum of costs that is kept; 0 keeps nothing that is not in use. */
int cache_new(size_t capacity, Cache **ret);
Cache *cache_free(Cache *cache); /* always NULL; no reference may be left */
DEFINE_CLEANUP(Cache, cache_free)

/* A number that no other owner in this process has had or will have. */
uint64_t cache_new_owner(void);

/* Finds or loads. Each success is paired with a cache_release(). The loader's errors are passed on. */
int cache_get(Cache *cache, CacheKey key, const CacheLoader *loader, void *context, CacheEntry **ret, Reason *reterr);
/* Finds what is there by now, as cache_get() does; false where it would have to be loaded, or is being. */
bool cache_find(Cache *cache, CacheKey key, CacheEntry **ret);
/* Whether it is there, or is being made. */
bool cache_has(Cache *cache, CacheKey key);
void *cache_value(const CacheEntry *entry);
CacheEntry *cache_release(CacheEntry *entry); /* always NULL */
DEFINE_CLEANUP(CacheEntry, cache_release)

/* Lets nobody else find it: it goes with its last reference. For what should be made anew next time. */
void cache_drop(CacheEntry *entry);

/* Drops what an owner has in the cache and is not in use. Call it when the owner goes away. */
void cache_forget(Cache *cache, uint64_t owner);
/* The same for one thing: of an owner that has no other. */
void cache_forget_one(Cache *cache, CacheKey key);

/* Sum of the costs of all that the cache holds now. */
size_t cache_used(Cache *cache);
