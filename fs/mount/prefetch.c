#include "mount/prefetch.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "mount/waiting.h"
#include "util/bytes.h"

#define AHEAD 4                      /* ranges that are made ready for a descriptor */
#define RANGES (AHEAD + 1)           /* and the one that is being answered from */
#define STREAK (256u << 10)          /* bytes read without a gap before anything is made ready */
#define LONG_REQUEST (128u << 10)    /* bytes: the next one is taken to be as long; shorter ones share a range */
#define THREADS 4                    /* more than most have processors: cold, they wait for the disk */

typedef enum RangeState {
        RANGE_FREE,
        RANGE_QUEUED,
        RANGE_RUNNING,
        RANGE_READY,
        RANGE_USELESS, /* a hole, or it cannot be read: who asks sees to it by itself */
} RangeState;

struct PrefetchRange {
        Prefetch *prefetch;
        RangeState state;
        uint64_t start;
        size_t length;
        unsigned users; /* that are answering from it */
        bool stale;     /* nobody will ask for it any more */
        unsigned char *buffer;
        PrefetchRange *next; /* of the queue */
};

struct Prefetch {
        Prefetcher *prefetcher;
        const ChainView *view;
        atomic_uint_fast64_t next; /* where the last read ended */
        atomic_uint_fast64_t streak; /* bytes read without a gap */
        PrefetchRange ranges[RANGES]; /* guarded by the prefetcher's lock, but the bytes of those in use */
};

struct Prefetcher {
        pthread_mutex_t lock;
        pthread_cond_t queued; /* something, or the end */
        pthread_cond_t done;   /* a range is no longer running, or in use */
        PrefetchRange *first, **last;
        unsigned char *spare[PREFETCH_BUFFERS];
        size_t spare_count, buffer_count;
        pthread_t threads[THREADS];
        size_t thread_count;
        bool over;
};

int prefetcher_new(Prefetcher **ret) {
        Prefetcher *prefetcher = calloc(1, sizeof *prefetcher);

        if (!prefetcher)
                return -ENOMEM;
        pthread_mutex_init(&prefetcher->lock, NULL);
        pthread_cond_init(&prefetcher->queued, NULL);
        pthread_cond_init(&prefetcher->done, NULL);
        prefetcher->last = &prefetcher->first;
        *ret = prefetcher;
        return 0;
}

Prefetcher *prefetcher_free(Prefetcher *prefetcher) {
        pthread_mutex_lock(&prefetcher->lock);
        prefetcher->over = true;
        pthread_cond_broadcast(&prefetcher->queued);
        pthread_mutex_unlock(&prefetcher->lock);
        for (size_t i = 0; i < prefetcher->thread_count; i++)
                pthread_join(prefetcher->threads[i], NULL);
        while (prefetcher->spare_count > 0)
                free(prefetcher->spare[--prefetcher->spare_count]);
        pthread_cond_destroy(&prefetcher->done);
        pthread_cond_destroy(&prefetcher->queued);
        pthread_mutex_destroy(&prefetcher->lock);
        free(prefetcher);
        return NULL;
}

int prefetch_new(Prefetcher *prefetcher, const ChainView *view, Prefetch **ret) {
        Prefetch *prefetch = calloc(1, sizeof *prefetch);

        if (!prefetch)
                return -ENOMEM;
        prefetch->prefetcher = prefetcher;
        prefetch->view = view;
        for (size_t i = 0; i < RANGES; i++)
                prefetch->ranges[i].prefetch = prefetch;
        *ret = prefetch;
        return 0;
}

/* ---- With the lock held. ---- */

static bool take_buffer(Prefetcher *prefetcher, PrefetchRange *range) {
        if (prefetcher->spare_count > 0)
                range->buffer = prefetcher->spare[--prefetcher->spare_count];
        else if (prefetcher->buffer_count < PREFETCH_BUFFERS) {
                range->buffer = aligned_alloc(4096, PREFETCH_SIZE);
                prefetcher->buffer_count += range->buffer != NULL;
        }
        return range->buffer;
}

static void set_free(Prefetcher *prefetcher, PrefetchRange *range) {
        prefetcher->spare[prefetcher->spare_count++] = range->buffer;
        range->buffer = NULL;
        range->stale = false;
        range->state = RANGE_FREE;
}

static void unqueue(Prefetcher *prefetcher, PrefetchRange *range) {
        PrefetchRange **at = &prefetcher->first;

        while (*at != range)
                at = &(*at)->next;
        *at = range->next;
        if (!range->next)
                prefetcher->last = at;
}

/* Frees it as soon as nobody uses it. */
static void give_up(Prefetcher *prefetcher, PrefetchRange *range) {
        if (range->state == RANGE_QUEUED)
                unqueue(prefetcher, range);
        if (range->state == RANGE_RUNNING || range->users > 0)
                range->stale = true;
        else if (range->state != RANGE_FREE)
                set_free(prefetcher, range);
}

static RangeState fill(const PrefetchRange *range) {
        const ChainView *view = range->prefetch->view;

        if (chain_view_is_zero(view, range->start, range->length) != 0 ||
            chain_view_read(view, range->buffer, range->length, range->start, NULL) < 0)
                return RANGE_USELESS;
        return RANGE_READY;
}

static void *make_ready(void *context) {
        Prefetcher *prefetcher = context;

        waiting_never();
        pthread_mutex_lock(&prefetcher->lock);
        for (;;) {
                PrefetchRange *range;
                RangeState state;

                while (!prefetcher->first && !prefetcher->over)
                        pthread_cond_wait(&prefetcher->queued, &prefetcher->lock);
                range = prefetcher->first;
                if (!range)
                        break;
                unqueue(prefetcher, range);
                range->state = RANGE_RUNNING;
                pthread_mutex_unlock(&prefetcher->lock);
                state = fill(range);
                pthread_mutex_lock(&prefetcher->lock);
                range->state = state;
                if (range->stale)
                        give_up(prefetcher, range);
                pthread_cond_broadcast(&prefetcher->done);
        }
        pthread_mutex_unlock(&prefetcher->lock);
        return NULL;
}

/* What is queued without any is read by who asks for it. */
static void start_threads(Prefetcher *prefetcher) {
        while (prefetcher->thread_count < THREADS &&
               pthread_create(&prefetcher->threads[prefetcher->thread_count], NULL, make_ready, prefetcher) == 0)
                prefetcher->thread_count++;
}

static void queue(Prefetcher *prefetcher, PrefetchRange *range, uint64_t start, size_t length) {
        if (!take_buffer(prefetcher, range))
                return;
        range->start = start;
        range->length = length;
        range->state = RANGE_QUEUED;
        range->next = NULL;
        *prefetcher->last = range;
        prefetcher->last = &range->next;
        if (prefetcher->thread_count == 0)
                start_threads(prefetcher);
        pthread_cond_signal(&prefetcher->queued);
}

/* Queues what follows the read that ends at end, as far as there is room and it is no hole: holes need no making. */
static void look_ahead(Prefetch *prefetch, uint64_t end, size_t length) {
        size_t step = length >= LONG_REQUEST ? min_u64(length, PREFETCH_SIZE) : PREFETCH_SIZE;
        uint64_t ahead = end;
        unsigned there = 0;

        for (size_t i = 0; i < RANGES; i++) {
                PrefetchRange *range = &prefetch->ranges[i];

                if (range->state == RANGE_FREE || range->stale)
                        continue;
                if (range->start + range->length < end) {
                        give_up(prefetch->prefetcher, range);
                        continue;
                }
                if (range->start + range->length == end)
                        continue; /* the one that is being read */
                ahead = max_u64(ahead, range->start + range->length);
                there++;
        }
        for (size_t i = 0; i < RANGES && there < AHEAD && ahead < chain_view_size(prefetch->view); i++) {
                if (prefetch->ranges[i].state != RANGE_FREE)
                        continue;
                queue(prefetch->prefetcher, &prefetch->ranges[i], ahead,
                      (size_t) min_u64(step, chain_view_size(prefetch->view) - ahead));
                ahead += step;
                there++;
        }
}

static PrefetchRange *find(Prefetch *prefetch, uint64_t offset, size_t length) {
        for (size_t i = 0; i < RANGES; i++) {
                PrefetchRange *range = &prefetch->ranges[i];

                if (range->state != RANGE_FREE && !range->stale && range->start <= offset &&
                    offset + length <= range->start + range->length)
                        return range;
        }
        return NULL;
}

static void give_up_all(Prefetch *prefetch) {
        for (size_t i = 0; i < RANGES; i++)
                give_up(prefetch->prefetcher, &prefetch->ranges[i]);
}

/* ---- Without the lock. ---- */

/* Whether reads follow each other; notes this one. Readers of a descriptor that are many are in each other's way here, and
 * need nobody to read ahead for them. */
static bool goes_on(Prefetch *prefetch, uint64_t offset, size_t length, bool *ret_broken) {
        bool follows = atomic_exchange_explicit(&prefetch->next, offset + length, memory_order_relaxed) == offset;
        uint64_t streak = follows ? atomic_load_explicit(&prefetch->streak, memory_order_relaxed) : 0;

        *ret_broken = !follows && atomic_load_explicit(&prefetch->streak, memory_order_relaxed) >= STREAK;
        atomic_store_explicit(&prefetch->streak, streak + length, memory_order_relaxed);
        return streak + length >= STREAK && follows;
}

PrefetchRange *prefetch_read(Prefetch *prefetch, uint64_t offset, size_t length, const void **ret_bytes) {
        Prefetcher *prefetcher = prefetch->prefetcher;
        PrefetchRange *range = NULL;
        bool broken = false, on = goes_on(prefetch, offset, length, &broken);

        if (!on && !broken)
                return NULL;
        pthread_mutex_lock(&prefetcher->lock);
        if (broken)
                give_up_all(prefetch);
        else {
                range = find(prefetch, offset, length);
                if (range)
                        range->users++;
                look_ahead(prefetch, offset + length, length);
                while (range && range->state == RANGE_RUNNING)
                        pthread_cond_wait(&prefetcher->done, &prefetcher->lock);
                if (range && range->state != RANGE_READY) {
                        range->users--;
                        give_up(prefetcher, range);
                        range = NULL;
                }
        }
        pthread_mutex_unlock(&prefetcher->lock);
        if (range)
                *ret_bytes = range->buffer + (offset - range->start);
        return range;
}

void prefetch_release(PrefetchRange *range, uint64_t end) {
        Prefetcher *prefetcher = range->prefetch->prefetcher;

        pthread_mutex_lock(&prefetcher->lock);
        range->users--;
        if (range->stale || end == range->start + range->length) {
                give_up(prefetcher, range);
                pthread_cond_broadcast(&prefetcher->done);
        }
        pthread_mutex_unlock(&prefetcher->lock);
}

static bool is_in_use(const Prefetch *prefetch) {
        for (size_t i = 0; i < RANGES; i++)
                if (prefetch->ranges[i].state != RANGE_FREE)
                        return true;
        return false;
}

Prefetch *prefetch_free(Prefetch *prefetch) {
        Prefetcher *prefetcher = prefetch->prefetcher;

        pthread_mutex_lock(&prefetcher->lock);
        give_up_all(prefetch);
        while (is_in_use(prefetch))
                pthread_cond_wait(&prefetcher->done, &prefetcher->lock);
        pthread_mutex_unlock(&prefetcher->lock);
        free(prefetch);
        return NULL;
}
