/* core/util/clock.h - how much time passes, by the clock that nobody sets (CLOCK_MONOTONIC).
 *
 * What time it is, people's clock tells: timestamp.h. Threads: any. */
#pragma once

#include <pthread.h>
#include <stdint.h>
#include <time.h>

uint64_t clock_now_ns(void);
uint64_t clock_now_ms(void);

/* The moment so many milliseconds from now, as timed waits of this clock want it. */
struct timespec clock_in_ms(unsigned ms);

/* A condition whose timed waits are of this clock. */
void clock_condition_init(pthread_cond_t *condition);
