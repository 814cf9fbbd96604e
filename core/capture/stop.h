/* core/capture/stop.h - the one place where a capture's threads say that it must end, and why.
 *
 * The first cause is kept: what fails afterwards fails because of it. The flag is what sources look at while they wait.
 * Threads: any. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/reason.h"

typedef struct Stop {
        atomic_bool flag; /* given to the source as its cancel flag */
        pthread_mutex_t lock;
        int rc; /* of the first cause; 0: none */
        Reason reason;
} Stop;

void stop_init(Stop *stop);
void stop_destroy(Stop *stop);

static inline bool stop_requested(const Stop *stop) {
        return atomic_load(&stop->flag);
}

/* Ends the capture for this reason, unless it ends already. */
void stop_because(Stop *stop, int rc, const Reason *reason);

/* The first cause in place of rc, which may have followed from it; rc itself where there is none. */
int stop_cause(Stop *stop, int rc, Reason *reterr);

/* Waits so long, or until the capture ends: -ECANCELED. */
int stop_pause(const Stop *stop, uint64_t ms);

/* Lowers the flag, so that cleaning up is not cut short; the cause stays. No other thread may be left. */
void stop_let_clean_up(Stop *stop);
