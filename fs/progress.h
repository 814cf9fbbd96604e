/* fs/progress.h - bars on stderr with rate and remaining time, where that is a terminal; nothing elsewhere.
 *
 * Threads: any. */
#pragma once

#include <stddef.h>
#include <stdint.h>

typedef struct ProgressBar {
        const char *subject;
        uint64_t done, total; /* bytes; total 0: not known yet */
} ProgressBar;

/* Draws them anew, one below the other; those that the terminal has no room for are left out from the front. The last one
 * is the whole, with its rate in bytes/s. */
void progress_show(const ProgressBar *bars, size_t count, uint64_t rate);

/* Takes them away, before other words and at the end. */
void progress_clear(void);
