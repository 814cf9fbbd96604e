/* core/util/patience.h - how long whoever asked is willing to wait for what takes minutes.
 *
 * Some reads have to wait until something has been made ready (an archive is unpacked). Who calls says beforehand, for its
 * thread, how to learn that nobody waits any more. Waits look at this several times a second.
 * Threads: each has its own. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef struct Patience {
        bool (*is_over)(void *context);
        void *context;
        bool light; /* what takes minutes is not begun, nor waited for: nobody asked for it expressly */
} Patience;

/* For all waits of this thread from now on, until set again; NULL: they wait as long as it takes. Borrowed. */
void patience_set(const Patience *patience);

bool patience_is_over(void);
bool patience_is_light(void);

/* For the time between the two no wait of this thread lasts longer than that from now on, nor longer than it would have. */
typedef struct PatienceLimit {
        Patience patience;
        const Patience *outer;
        uint64_t deadline; /* ms, of clock_now_ms() */
} PatienceLimit;

void patience_limit(PatienceLimit *limit, unsigned milliseconds);
void patience_unlimit(PatienceLimit *limit);

#define PATIENCE_INTERVAL 100 /* milliseconds between two looks */
