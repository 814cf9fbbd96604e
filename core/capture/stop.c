#include "capture/stop.h"

#include <errno.h>
#include <time.h>

#include "util/bytes.h"

#define PAUSE_STEP_MS 50u

void stop_init(Stop *stop) {
        atomic_init(&stop->flag, false);
        pthread_mutex_init(&stop->lock, NULL);
        stop->rc = 0;
        stop->reason = REASON_INIT;
}

void stop_destroy(Stop *stop) {
        pthread_mutex_destroy(&stop->lock);
}

void stop_because(Stop *stop, int rc, const Reason *reason) {
        pthread_mutex_lock(&stop->lock);
        if (stop->rc == 0) {
                stop->rc = rc;
                stop->reason = *reason;
        }
        pthread_mutex_unlock(&stop->lock);
        atomic_store(&stop->flag, true);
}

int stop_cause(Stop *stop, int rc, Reason *reterr) {
        pthread_mutex_lock(&stop->lock);
        if (stop->rc != 0) {
                rc = stop->rc;
                if (reterr)
                        *reterr = stop->reason;
        }
        pthread_mutex_unlock(&stop->lock);
        return rc;
}

int stop_pause(const Stop *stop, uint64_t ms) {
        while (ms > 0 && !stop_requested(stop)) {
                uint64_t step = min_u64(ms, PAUSE_STEP_MS);

                nanosleep(&(struct timespec) { .tv_nsec = (long) step * 1000000 }, NULL);
                ms -= step;
        }
        return stop_requested(stop) ? -ECANCELED : 0;
}

void stop_let_clean_up(Stop *stop) {
        atomic_store(&stop->flag, false);
}
