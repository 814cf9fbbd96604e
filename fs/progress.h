/* fs/progress.h - a bar on stderr with rate and remaining time, where that is a terminal; nothing elsewhere.
 *
 * Threads: any. */
#pragma once

#include <stdint.h>

/* Draws it anew. total 0: not known yet. rate in bytes/s. */
void progress_show(const char *subject, uint64_t done, uint64_t total, uint64_t rate);

/* Takes it away, before other words and at the end. */
void progress_clear(void);
