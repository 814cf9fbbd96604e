/* core/capture/rate.h - a limit on bytes per second, for all who read: a bucket that fills steadily. Threads: any. */
#pragma once

#include <stdint.h>

#include "capture/stop.h"

typedef struct Rate Rate;

/* bytes_per_second: not 0. NULL: no memory. */
Rate *rate_new(uint64_t bytes_per_second);
Rate *rate_free(Rate *rate); /* always NULL */

/* Waits until so many bytes may be read. NULL: at once. -ECANCELED. */
int rate_take(Rate *rate, uint64_t bytes, const Stop *stop);
