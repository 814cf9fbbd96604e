/* What the cache promises: made once, bounded, kept while in use, forgotten. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "random.h"
#include "unit.h"
#include "util/cache.h"

typedef struct Thing {
        uint64_t owner, item;
} Thing;

static atomic_int made, freed;

/* Costs what context points to, or 1; fails where that is 0. */
static int make_thing(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        size_t cost = context ? *(size_t *) context : 1;
        Thing *thing;

        if (cost == 0)
                return fail(reterr, -EIO, "cannot be made");
        thing = malloc(sizeof *thing);
        *thing = (Thing) { key.owner, key.item };
        atomic_fetch_add(&made, 1);
        *ret = thing;
        *ret_cost = cost;
        return 0;
}

static void free_thing(void *value) {
        atomic_fetch_add(&freed, 1);
        memset(value, 0xff, sizeof(Thing)); /* so that a use after this shows */
        free(value);
}

static const CacheLoader loader = { make_thing, free_thing };

static Cache *new_cache(size_t capacity) {
        Cache *cache;

        atomic_store(&made, 0);
        atomic_store(&freed, 0);
        CHECK_INT(cache_new(capacity, &cache), 0);
        return cache;
}

static CacheEntry *get(Cache *cache, uint64_t owner, uint64_t item, size_t cost) {
        Reason reason = REASON_INIT;
        CacheEntry *entry;

        CHECK_INT(cache_get(cache, (CacheKey) { owner, item }, &loader, &cost, &entry, &reason), 0);
        CHECK(((Thing *) cache_value(entry))->owner == owner && ((Thing *) cache_value(entry))->item == item);
        return entry;
}

static void found_again_without_making(void) {
        Cache *cache = new_cache(1000);

        cache_release(get(cache, 1, 7, 10));
        cache_release(get(cache, 1, 7, 10));
        CHECK_INT(made, 1);
        CHECK_INT(cache_used(cache), 10);
        cache_release(get(cache, 2, 7, 10));
        CHECK_INT(made, 2);
        cache_free(cache);
        CHECK_INT(freed, 2);
}

static void what_is_there_is_found_without_a_loader(void) {
        Cache *cache = new_cache(1000);
        CacheEntry *kept = get(cache, 1, 7, 10), *entry = NULL;

        CHECK(cache_find(cache, (CacheKey) { 1, 7 }, &entry) && entry == kept);
        CHECK(cache_has(cache, (CacheKey) { 1, 7 }));
        cache_release(kept);
        CHECK(!cache_find(cache, (CacheKey) { 1, 8 }, &kept));
        CHECK(!cache_has(cache, (CacheKey) { 1, 8 }));
        cache_forget(cache, 1);
        CHECK(!cache_find(cache, (CacheKey) { 1, 7 }, &kept));
        CHECK(!cache_has(cache, (CacheKey) { 1, 7 }));
        CHECK_INT(freed, 0); /* in use still */
        cache_release(entry);
        CHECK_INT(freed, 1);
        CHECK_INT(made, 1);
        cache_free(cache);
}

static void without_capacity_only_what_is_in_use_is_kept(void) {
        Cache *cache = new_cache(0);
        CacheEntry *entry = get(cache, 1, 1, 5);

        CHECK(get(cache, 1, 1, 5) == entry);
        cache_release(entry);
        CHECK_INT(freed, 0);
        CHECK_INT(cache_used(cache), 5);
        cache_release(entry);
        CHECK_INT(freed, 1);
        CHECK_INT(cache_used(cache), 0);
        cache_free(cache);
}

static void more_than_the_capacity_goes_and_what_is_in_use_stays(void) {
        Cache *cache = new_cache(1600);
        CacheEntry *kept = get(cache, 9, 0, 10);

        for (uint64_t i = 0; i < 10000; i++) {
                cache_release(get(cache, 1, i, 10));
                CHECK(cache_used(cache) <= 1610);
        }
        CHECK(cache_used(cache) > 1600 / 2);
        CHECK(get(cache, 9, 0, 10) == kept);
        cache_release(kept);
        cache_release(kept);
        CHECK_INT(made, 10001);
        cache_free(cache);
        CHECK_INT(freed, 10001);
}

static void what_is_used_often_outlives_what_is_not(void) {
        Cache *cache = new_cache(16000);
        int made_often;

        for (uint64_t i = 0; i < 20000; i++) {
                cache_release(get(cache, 1, i, 10));
                cache_release(get(cache, 2, i % 8, 10));
        }
        made_often = made - 20000;
        CHECK_INT(made_often, 8);
        cache_free(cache);
}

static void a_failed_load_is_told_and_not_remembered(void) {
        Cache *cache = new_cache(100);
        Reason reason = REASON_INIT;
        CacheEntry *entry = NULL;
        size_t cost = 0;

        CHECK_INT(cache_get(cache, (CacheKey) { 1, 1 }, &loader, &cost, &entry, &reason), -EIO);
        CHECK_SAYS(reason, "cannot be made");
        CHECK(!entry);
        CHECK_INT(cache_used(cache), 0);
        cache_release(get(cache, 1, 1, 5));
        cache_free(cache);
}

static void a_forgotten_owner_is_gone_and_others_stay(void) {
        Cache *cache = new_cache(100000);
        CacheEntry *used = get(cache, 1, 500, 10);

        for (uint64_t i = 0; i < 100; i++) {
                cache_release(get(cache, 1, i, 10));
                cache_release(get(cache, 257, i, 10)); /* neighbours, whatever owners are hashed by */
                cache_release(get(cache, 2, i, 10));
        }
        cache_forget(cache, 1);
        CHECK_INT(freed, 100);
        CHECK_INT(cache_used(cache), 2010);
        CHECK_INT(((Thing *) cache_value(used))->item, 500);
        cache_release(used);
        CHECK_INT(cache_used(cache), 2000);
        cache_forget(cache, 1);
        CHECK_INT(freed, 101);
        cache_free(cache);
}

static void a_forgotten_thing_is_gone_and_others_stay(void) {
        Cache *cache = new_cache(1000);
        CacheEntry *used = get(cache, 1, 2, 10);

        cache_release(get(cache, 1, 1, 10));
        cache_release(get(cache, 1, 3, 10));
        cache_forget_one(cache, (CacheKey) { 1, 1 });
        cache_forget_one(cache, (CacheKey) { 1, 1 });
        CHECK_INT(freed, 1);
        cache_forget_one(cache, (CacheKey) { 1, 2 });
        CHECK_INT(cache_used(cache), 20);
        cache_release(used);
        CHECK_INT(cache_used(cache), 10);
        cache_free(cache);
}

static void what_is_dropped_is_made_anew(void) {
        Cache *cache = new_cache(1000);
        CacheEntry *first = get(cache, 1, 1, 10), *second;

        cache_drop(first);
        cache_drop(first);
        second = get(cache, 1, 1, 10);
        CHECK(second != first);
        CHECK_INT(cache_used(cache), 20);
        cache_release(first);
        CHECK_INT(freed, 1);
        cache_forget(cache, 1);
        cache_release(second);
        CHECK_INT(cache_used(cache), 0);
        cache_free(cache);
}

/* A loader that itself gets another thing from the cache, as a region gets pages. */
static int make_from_another(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        CacheEntry *other = get(context, key.owner + 1, key.item, 10);
        size_t cost = 10;
        int rc = make_thing(&cost, key, ret, ret_cost, reterr);

        cache_release(other);
        return rc;
}

static void a_loader_may_use_the_cache(void) {
        static const CacheLoader nested = { make_from_another, free_thing };
        Cache *cache = new_cache(50);
        Reason reason = REASON_INIT;
        CacheEntry *entry;

        for (uint64_t i = 0; i < 100; i++) {
                CHECK_INT(cache_get(cache, (CacheKey) { 1, i }, &nested, cache, &entry, &reason), 0);
                cache_release(entry);
        }
        CHECK_INT(made, 200);
        cache_free(cache);
}

/* ---- threads ---- */

#define THREADS 8

static void run_threads(void *(*function)(void *), void *context) {
        pthread_t threads[THREADS];

        for (int i = 0; i < THREADS; i++)
                CHECK_INT(pthread_create(&threads[i], NULL, function, context), 0);
        for (int i = 0; i < THREADS; i++)
                CHECK_INT(pthread_join(threads[i], NULL), 0);
}

static pthread_barrier_t barrier;

static void *get_all_at_once(void *context) {
        for (uint64_t i = 0; i < 200; i++) {
                pthread_barrier_wait(&barrier);
                cache_release(get(context, 1, i, 1));
        }
        return NULL;
}

static void threads_that_miss_at_once_make_once(void) {
        Cache *cache = new_cache(1 << 20);

        pthread_barrier_init(&barrier, NULL, THREADS);
        run_threads(get_all_at_once, cache);
        pthread_barrier_destroy(&barrier);
        CHECK_INT(made, 200);
        cache_free(cache);
}

static void *get_and_forget(void *context) {
        static atomic_uint thread_number;
        uint64_t state = atomic_fetch_add(&thread_number, 1) * 7919 + 1;

        for (unsigned i = 0; i < 20000; i++) {
                uint64_t owner, item;
                size_t cost = 5;
                CacheEntry *entry;
                Reason reason;

                state = state * 6364136223846793005u + 1442695040888963407u;
                owner = 1 + (state >> 33) % 3;
                item = (state >> 40) % 40;
                if ((state >> 50) % 50 == 0) {
                        cache_forget(context, owner);
                        continue;
                }
                if ((state >> 50) % 11 == 0) {
                        cost = 0;
                        if (cache_get(context, (CacheKey) { owner, item }, &loader, &cost, &entry, &reason) == 0)
                                cache_release(entry);
                        continue;
                }
                entry = get(context, owner, item, cost);
                if ((state >> 55) % 31 == 0)
                        cache_drop(entry);
                cache_release(entry);
        }
        return NULL;
}

static void threads_that_get_fail_drop_and_forget_leave_all_freed(void) {
        Cache *cache = new_cache(200);

        run_threads(get_and_forget, cache);
        CHECK(cache_used(cache) <= 200);
        cache_free(cache);
        CHECK_INT(freed, made);
}

static void forgetting_many_owners_does_not_walk_all_there_is(void) {
        Cache *cache = new_cache(1 << 30);

        /* A walk over everything for each owner would be 5 * 10^9 steps, and this would not end in time. */
        for (uint64_t owner = 1; owner <= 50000; owner++) {
                cache_release(get(cache, owner, 1, 1));
                cache_release(get(cache, owner, 2, 1));
        }
        for (uint64_t owner = 1; owner <= 50000; owner++)
                cache_forget(cache, owner);
        CHECK_INT(cache_used(cache), 0);
        CHECK_INT(freed, 100000);
        cache_free(cache);
}

int main(void) {
        RUN(found_again_without_making);
        RUN(what_is_there_is_found_without_a_loader);
        RUN(without_capacity_only_what_is_in_use_is_kept);
        RUN(more_than_the_capacity_goes_and_what_is_in_use_stays);
        RUN(what_is_used_often_outlives_what_is_not);
        RUN(a_failed_load_is_told_and_not_remembered);
        RUN(a_forgotten_owner_is_gone_and_others_stay);
        RUN(a_forgotten_thing_is_gone_and_others_stay);
        RUN(what_is_dropped_is_made_anew);
        RUN(a_loader_may_use_the_cache);
        RUN(threads_that_miss_at_once_make_once);
        RUN(threads_that_get_fail_drop_and_forget_leave_all_freed);
        RUN(forgetting_many_owners_does_not_walk_all_there_is);
        return unit_result();
}
