/* core/util/patience.h - how long whoever asked is willing to wait for what takes minutes.
 *
 * Some reads have to wait until something has been made ready (an archive is unpacked). Who calls says beforehand, for its
 * thread, how to learn that nobody waits any more. Waits look at this several times a second.
 * Threads: each has its own. */
#pragma once

#include <stdbool.h>

typedef struct Patience {
        bool (*is_over)(void *context);
        void *context;
} Patience;

/* For all waits of this thread from now on, until set again; NULL: they wait as long as it takes. Borrowed. */
void patience_set(const Patience *patience);

bool patience_is_over(void);

#define PATIENCE_INTERVAL 100 /* milliseconds between two looks */
