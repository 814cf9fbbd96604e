#include "capture/watcher.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "util/clock.h"

#define TICK_MS 50                 /* scratch space can fill quickly */
#define TICKS_PER_GUARDIAN_CHECK 20

struct Watcher {
        Guardian *guardian;
        const atomic_bool *cancel;
        Stop *stop;
        pthread_t user, job; /* the threads: what the user wants and the guardian; the job */

        pthread_mutex_t source_lock; /* of source, and of the source behind it; taken before nothing */
        Source *source;              /* NULL: nothing to watch */

        pthread_mutex_t lock;
        pthread_cond_t wake;
        bool quit;
};

static void watch_source(Watcher *watcher) {
        Reason reason = REASON_INIT;
        int rc;

        if (pthread_mutex_trylock(&watcher->source_lock) != 0)
                return; /* the capture is using it: next time */
        rc = watcher->source && !stop_requested(watcher->stop) ? source_watch(watcher->source, &reason) : 0;
        if (rc < 0)
                stop_because(watcher->stop, rc, &reason);
        pthread_mutex_unlock(&watcher->source_lock);
}

static bool wait_for_tick(Watcher *watcher) {
        struct timespec until = clock_in_ms(TICK_MS);
        bool late = false, quit;

        pthread_mutex_lock(&watcher->lock);
        while (!watcher->quit && !late)
                late = pthread_cond_timedwait(&watcher->wake, &watcher->lock, &until) == ETIMEDOUT;
        quit = watcher->quit;
        pthread_mutex_unlock(&watcher->lock);
        return !quit;
}

static void heed_user(Watcher *watcher) {
        Reason reason;

        if (!watcher->cancel || !atomic_load(watcher->cancel) || stop_requested(watcher->stop))
                return;
        guardian_tell_interrupted(watcher->guardian);
        stop_because(watcher->stop, fail(&reason, -ECANCELED, "interrupted"), &reason);
}

static void *user_run(void *context) {
        Watcher *watcher = context;

        for (unsigned tick = 1; wait_for_tick(watcher); tick++) {
                heed_user(watcher);
                /* One that cannot be replaced now is tried again at the next check; nothing is lost but the safety. */
                if (tick % TICKS_PER_GUARDIAN_CHECK == 0)
                        (void) guardian_check(watcher->guardian, NULL);
        }
        return NULL;
}

static void *job_run(void *context) {
        Watcher *watcher = context;

        while (wait_for_tick(watcher))
                watch_source(watcher);
        return NULL;
}

static void end_thread(Watcher *watcher, pthread_t thread) {
        pthread_mutex_lock(&watcher->lock);
        watcher->quit = true;
        pthread_cond_broadcast(&watcher->wake);
        pthread_mutex_unlock(&watcher->lock);
        pthread_join(thread, NULL);
}

static Watcher *destroy(Watcher *watcher) {
        pthread_cond_destroy(&watcher->wake);
        pthread_mutex_destroy(&watcher->lock);
        pthread_mutex_destroy(&watcher->source_lock);
        free(watcher);
        return NULL;
}

int watcher_start(Guardian *guardian, const atomic_bool *cancel, Stop *stop, Watcher **ret, Reason *reterr) {
        Watcher *watcher = calloc(1, sizeof *watcher);
        int rc;

        if (!watcher)
                return fail_oom(reterr);
        watcher->guardian = guardian;
        watcher->cancel = cancel;
        watcher->stop = stop;
        pthread_mutex_init(&watcher->source_lock, NULL);
        pthread_mutex_init(&watcher->lock, NULL);
        clock_condition_init(&watcher->wake);
        rc = -pthread_create(&watcher->user, NULL, user_run, watcher);
        if (rc == 0) {
                rc = -pthread_create(&watcher->job, NULL, job_run, watcher);
                if (rc < 0)
                        end_thread(watcher, watcher->user);
        }
        if (rc < 0) {
                destroy(watcher);
                return fail_errno(reterr, rc, "cannot start a thread");
        }
        *ret = watcher;
        return 0;
}

Watcher *watcher_free(Watcher *watcher) {
        if (!watcher)
                return NULL;
        end_thread(watcher, watcher->user);
        end_thread(watcher, watcher->job);
        return destroy(watcher);
}

void watcher_watch(Watcher *watcher, Source *source) {
        watcher_lock_source(watcher);
        watcher->source = source;
        watcher_unlock_source(watcher);
}

void watcher_lock_source(Watcher *watcher) {
        pthread_mutex_lock(&watcher->source_lock);
}

void watcher_unlock_source(Watcher *watcher) {
        pthread_mutex_unlock(&watcher->source_lock);
}
