#include "util/parallel.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#include "util/clock.h"

#define THREADS_MAX 16
#define ALONE_NS 200000 /* until others are started */

typedef struct Loop {
        size_t count;
        atomic_size_t next;
        void (*work)(void *context, size_t index);
        void *context;
} Loop;

static void *run(void *argument) {
        Loop *loop = argument;

        for (size_t i; (i = atomic_fetch_add(&loop->next, 1)) < loop->count;)
                loop->work(loop->context, i);
        return NULL;
}

void parallel_for(size_t count, size_t threads, void (*work)(void *context, size_t index), void *context) {
        Loop loop = { .count = count, .work = work, .context = context };
        uint64_t end = clock_now_ns() + ALONE_NS;
        pthread_t others[THREADS_MAX];
        size_t started = 0, left;

        while (loop.next < count && clock_now_ns() < end)
                work(context, loop.next++);
        left = count - loop.next;
        while (started < THREADS_MAX && started + 1 < threads && started + 1 < left &&
               pthread_create(&others[started], NULL, run, &loop) == 0)
                started++;
        run(&loop);
        while (started > 0)
                pthread_join(others[--started], NULL);
}
