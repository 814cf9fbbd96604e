#include "command-line/hand-over.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <time.h>

#include "util/clock.h"

#define LOOK_MS 50
#define GRACE_MS 1500  /* until it takes down what it began, */
#define ENDING_MS 2000 /* and until that is done; what it has not done by then is left to be done by others */

typedef struct Work {
        HandOver *hand_over;
        sem_t done;
        int rc;
} Work;

static void *work_run(void *context) {
        Work *work = context;

        work->rc = work->hand_over->work(work->hand_over->context);
        sem_post(&work->done);
        return NULL;
}

static bool is_done_soon(Work *work) {
        struct timespec until = clock_in_ms(LOOK_MS);

        return sem_clockwait(&work->done, CLOCK_MONOTONIC, &until) == 0;
}

/* False where it takes too long. Time in which the process was stopped does not count. */
static bool await(Work *work) {
        const HandOver *hand_over = work->hand_over;
        int waited_ms = 0;

        while (!is_done_soon(work)) {
                if (!atomic_load(hand_over->cancel))
                        continue;
                waited_ms += LOOK_MS;
                if (waited_ms > (atomic_load(&hand_over->ending) ? ENDING_MS : GRACE_MS))
                        return false;
        }
        return true;
}

int hand_over_run(HandOver *hand_over, Reason *reterr) {
        Work *work = calloc(1, sizeof *work);
        pthread_t thread;
        int rc;

        if (!work)
                return fail_oom(reterr);
        work->hand_over = hand_over;
        sem_init(&work->done, 0, 0);
        rc = -pthread_create(&thread, NULL, work_run, work);
        if (rc < 0) {
                free(work);
                return fail_errno(reterr, rc, "cannot start a thread");
        }
        if (!await(work))
                return -EINPROGRESS; /* what the thread uses stays */
        pthread_join(thread, NULL);
        rc = work->rc;
        sem_destroy(&work->done);
        free(work);
        return rc;
}
