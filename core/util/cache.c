#include "util/cache.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#define SHARD_COUNT 16     /* a power of 2 */
#define BUCKETS_INITIAL 64 /* a power of 2 */
#define OWNER_LISTS 256

typedef enum EntryState {
        ENTRY_LOADING,
        ENTRY_READY,
        ENTRY_DROPPED, /* no longer to be found; goes with its last reference */
} EntryState;

struct CacheEntry {
        struct Shard *shard;
        CacheKey key;
        EntryState state;
        size_t references;
        size_t cost;
        void *value;
        void (*free)(void *value);
        CacheEntry *next;              /* in its bucket */
        CacheEntry *older, *newer;     /* among those that are not in use */
        CacheEntry *before, *after;    /* in its owner's list */
};

/* A part of the cache with a lock of its own, so that threads seldom meet. */
typedef struct Shard {
        pthread_mutex_t lock;  /* of all here and in the entries; nothing else is locked within */
        pthread_cond_t loaded; /* an entry has left ENTRY_LOADING */
        CacheEntry **buckets;
        size_t bucket_count, entry_count;
        CacheEntry *owned[OWNER_LISTS]; /* all entries again, by owner: forgetting one does not look at all there is */
        CacheEntry *oldest, *newest;
        size_t used, capacity;
} Shard;

struct Cache {
        Shard shards[SHARD_COUNT];
};

uint64_t cache_new_owner(void) {
        static atomic_uint_fast64_t last;

        return atomic_fetch_add(&last, 1) + 1;
}

static uint64_t hash_key(CacheKey key) {
        uint64_t h = key.owner * 0x9e3779b97f4a7c15u ^ key.item;

        h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93u;
        h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93u;
        return h ^ (h >> 32);
}

int cache_new(size_t capacity, Cache **ret) {
        CLEANUP(cache_freep) Cache *cache = calloc(1, sizeof *cache);
        pthread_mutexattr_t spinning;

        if (!cache)
                return -ENOMEM;
        /* Locks are held for less than it takes to go to sleep. */
        pthread_mutexattr_init(&spinning);
        pthread_mutexattr_settype(&spinning, PTHREAD_MUTEX_ADAPTIVE_NP);
        for (size_t i = 0; i < SHARD_COUNT; i++) {
                Shard *shard = &cache->shards[i];

                pthread_mutex_init(&shard->lock, &spinning);
                pthread_cond_init(&shard->loaded, NULL);
                shard->capacity = capacity / SHARD_COUNT + (i < capacity % SHARD_COUNT);
        }
        for (size_t i = 0; i < SHARD_COUNT; i++) {
                cache->shards[i].buckets = calloc(BUCKETS_INITIAL, sizeof *cache->shards[i].buckets);
                if (!cache->shards[i].buckets)
                        return -ENOMEM;
                cache->shards[i].bucket_count = BUCKETS_INITIAL;
        }
        *ret = STEAL_PTR(cache);
        return 0;
}

static CacheEntry **find_bucket(Shard *shard, CacheKey key) {
        return &shard->buckets[(hash_key(key) / SHARD_COUNT) & (shard->bucket_count - 1)];
}

static CacheEntry *find_entry(Shard *shard, CacheKey key) {
        CacheEntry *entry = *find_bucket(shard, key);

        while (entry && (entry->key.owner != key.owner || entry->key.item != key.item))
                entry = entry->next;
        return entry;
}

/* Growing is for speed alone: without memory the lists stay longer. */
static void grow_buckets(Shard *shard) {
        size_t old_count = shard->bucket_count;
        CacheEntry **old = shard->buckets, **grown = calloc(old_count * 2, sizeof *grown);

        if (!grown)
                return;
        shard->buckets = grown;
        shard->bucket_count = old_count * 2;
        for (size_t i = 0; i < old_count; i++)
                while (old[i]) {
                        CacheEntry *entry = old[i], **bucket = find_bucket(shard, entry->key);

                        old[i] = entry->next;
                        entry->next = *bucket;
                        *bucket = entry;
                }
        free(old);
}

static CacheEntry **find_owned(Shard *shard, uint64_t owner) {
        return &shard->owned[owner % OWNER_LISTS];
}

static void insert_entry(Shard *shard, CacheEntry *entry) {
        CacheEntry **bucket, **owned = find_owned(shard, entry->key.owner);

        if (shard->entry_count >= shard->bucket_count)
                grow_buckets(shard);
        bucket = find_bucket(shard, entry->key);
        entry->next = *bucket;
        *bucket = entry;
        entry->after = *owned;
        if (*owned)
                (*owned)->before = entry;
        *owned = entry;
        shard->entry_count++;
}

static void remove_entry(Shard *shard, CacheEntry *entry) {
        CacheEntry **link = find_bucket(shard, entry->key);

        while (*link != entry)
                link = &(*link)->next;
        *link = entry->next;
        *(entry->before ? &entry->before->after : find_owned(shard, entry->key.owner)) = entry->after;
        if (entry->after)
                entry->after->before = entry->before;
        shard->entry_count--;
        entry->state = ENTRY_DROPPED;
}

static void put_in_use(Shard *shard, CacheEntry *entry) {
        if (entry->references++ > 0)
                return;
        *(entry->older ? &entry->older->newer : &shard->oldest) = entry->newer;
        *(entry->newer ? &entry->newer->older : &shard->newest) = entry->older;
        entry->older = entry->newer = NULL;
}

static void put_out_of_use(Shard *shard, CacheEntry *entry) {
        entry->older = shard->newest;
        entry->newer = NULL;
        *(shard->newest ? &shard->newest->newer : &shard->oldest) = entry;
        shard->newest = entry;
}

/* Takes what passes the capacity out of the shard, oldest first; the caller frees it without the lock. */
static CacheEntry *evict(Shard *shard) {
        CacheEntry *evicted = NULL;

        while (shard->used > shard->capacity && shard->oldest) {
                CacheEntry *entry = shard->oldest;

                put_in_use(shard, entry);
                remove_entry(shard, entry);
                shard->used -= entry->cost;
                entry->next = evicted;
                evicted = entry;
        }
        return evicted;
}

static void free_entries(CacheEntry *entry) {
        while (entry) {
                CacheEntry *next = entry->next;

                if (entry->free)
                        entry->free(entry->value);
                free(entry);
                entry = next;
        }
}

/* Everything goes that is not in use, whatever it costs. */
static void empty_shard(Shard *shard) {
        CacheEntry *gone;

        do {
                pthread_mutex_lock(&shard->lock);
                gone = shard->oldest;
                if (gone) {
                        put_in_use(shard, gone);
                        remove_entry(shard, gone);
                        shard->used -= gone->cost;
                        gone->next = NULL;
                }
                pthread_mutex_unlock(&shard->lock);
                free_entries(gone);
        } while (gone);
}

Cache *cache_free(Cache *cache) {
        if (!cache)
                return NULL;
        /* What is freed may itself use the cache, in any shard. */
        for (size_t i = 0; i < SHARD_COUNT; i++)
                empty_shard(&cache->shards[i]);
        for (size_t i = 0; i < SHARD_COUNT; i++) {
                assert(cache->shards[i].entry_count == 0);
                free(cache->shards[i].buckets);
                pthread_cond_destroy(&cache->shards[i].loaded);
                pthread_mutex_destroy(&cache->shards[i].lock);
        }
        free(cache);
        return NULL;
}

/* Makes the value of an entry that is in the shard as ENTRY_LOADING, with one reference: ours. */
static int load_entry(Shard *shard, CacheEntry *entry, const CacheLoader *loader, void *context, CacheEntry **ret,
                      Reason *reterr) {
        CacheEntry *evicted = NULL;
        void *value = NULL;
        size_t cost = 0;
        bool gone = false;
        int rc = loader->load(context, entry->key, &value, &cost, reterr);

        pthread_mutex_lock(&shard->lock);
        if (rc < 0) {
                if (entry->state == ENTRY_LOADING)
                        remove_entry(shard, entry);
                gone = --entry->references == 0;
        } else {
                entry->value = value;
                entry->free = loader->free;
                entry->cost = cost;
                shard->used += cost;
                if (entry->state == ENTRY_LOADING)
                        entry->state = ENTRY_READY;
                evicted = evict(shard);
                *ret = entry;
        }
        pthread_cond_broadcast(&shard->loaded);
        pthread_mutex_unlock(&shard->lock);
        free_entries(evicted);
        if (gone)
                free(entry);
        return rc;
}

int cache_get(Cache *cache, CacheKey key, const CacheLoader *loader, void *context, CacheEntry **ret, Reason *reterr) {
        Shard *shard = &cache->shards[hash_key(key) % SHARD_COUNT];
        CacheEntry *entry;

        pthread_mutex_lock(&shard->lock);
        while ((entry = find_entry(shard, key))) {
                put_in_use(shard, entry);
                while (entry->state == ENTRY_LOADING)
                        pthread_cond_wait(&shard->loaded, &shard->lock);
                if (entry->state == ENTRY_READY) {
                        pthread_mutex_unlock(&shard->lock);
                        *ret = entry;
                        return 0;
                }
                /* Its load failed, or it was forgotten meanwhile: look again. */
                if (--entry->references == 0) {
                        entry->next = NULL;
                        shard->used -= entry->cost;
                        pthread_mutex_unlock(&shard->lock);
                        free_entries(entry);
                        pthread_mutex_lock(&shard->lock);
                }
        }
        entry = calloc(1, sizeof *entry);
        if (entry) {
                *entry = (CacheEntry) { .shard = shard, .key = key, .state = ENTRY_LOADING, .references = 1 };
                insert_entry(shard, entry);
        }
        pthread_mutex_unlock(&shard->lock);
        if (!entry)
                return fail_oom(reterr);
        return load_entry(shard, entry, loader, context, ret, reterr);
}

bool cache_find(Cache *cache, CacheKey key, CacheEntry **ret) {
        Shard *shard = &cache->shards[hash_key(key) % SHARD_COUNT];
        CacheEntry *entry;

        pthread_mutex_lock(&shard->lock);
        entry = find_entry(shard, key);
        if (entry && entry->state != ENTRY_READY)
                entry = NULL;
        if (entry)
                put_in_use(shard, entry);
        pthread_mutex_unlock(&shard->lock);
        if (!entry)
                return false;
        *ret = entry;
        return true;
}

bool cache_has(Cache *cache, CacheKey key) {
        Shard *shard = &cache->shards[hash_key(key) % SHARD_COUNT];
        bool has;

        pthread_mutex_lock(&shard->lock);
        has = find_entry(shard, key) != NULL;
        pthread_mutex_unlock(&shard->lock);
        return has;
}

void *cache_value(const CacheEntry *entry) {
        return entry->value;
}

CacheEntry *cache_release(CacheEntry *entry) {
        Shard *shard;
        CacheEntry *gone = NULL;

        if (!entry)
                return NULL;
        shard = entry->shard;
        pthread_mutex_lock(&shard->lock);
        if (--entry->references == 0) {
                if (entry->state == ENTRY_READY) {
                        put_out_of_use(shard, entry);
                        gone = evict(shard);
                } else {
                        shard->used -= entry->cost;
                        entry->next = NULL;
                        gone = entry;
                }
        }
        pthread_mutex_unlock(&shard->lock);
        free_entries(gone);
        return NULL;
}

void cache_drop(CacheEntry *entry) {
        Shard *shard = entry->shard;

        pthread_mutex_lock(&shard->lock);
        if (entry->state != ENTRY_DROPPED)
                remove_entry(shard, entry);
        pthread_mutex_unlock(&shard->lock);
}

/* With the shard's lock held; what is to be freed then goes to *gone. */
static void forget_entry(Shard *shard, CacheEntry *entry, CacheEntry **gone) {
        bool unused = entry->references == 0; /* else it goes with its last reference */

        if (unused)
                put_in_use(shard, entry);
        remove_entry(shard, entry);
        if (!unused)
                return;
        shard->used -= entry->cost;
        entry->next = *gone;
        *gone = entry;
}

void cache_forget_one(Cache *cache, CacheKey key) {
        Shard *shard = &cache->shards[hash_key(key) % SHARD_COUNT];
        CacheEntry *gone = NULL, *entry;

        pthread_mutex_lock(&shard->lock);
        entry = find_entry(shard, key);
        if (entry)
                forget_entry(shard, entry, &gone);
        pthread_mutex_unlock(&shard->lock);
        free_entries(gone);
}

void cache_forget(Cache *cache, uint64_t owner) {
        for (size_t i = 0; i < SHARD_COUNT; i++) {
                Shard *shard = &cache->shards[i];
                CacheEntry *gone = NULL;

                pthread_mutex_lock(&shard->lock);
                for (CacheEntry *entry = *find_owned(shard, owner), *after; entry; entry = after) {
                        after = entry->after;
                        if (entry->key.owner == owner)
                                forget_entry(shard, entry, &gone);
                }
                pthread_mutex_unlock(&shard->lock);
                free_entries(gone);
        }
}

size_t cache_used(Cache *cache) {
        size_t used = 0;

        for (size_t i = 0; i < SHARD_COUNT; i++) {
                pthread_mutex_lock(&cache->shards[i].lock);
                used += cache->shards[i].used;
                pthread_mutex_unlock(&cache->shards[i].lock);
        }
        return used;
}
