/* fs/command-line/progress.h - bars on stderr with rate and remaining time, where that is a terminal; nothing elsewhere.
 *
 * Threads: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct ProgressBar {
        const char *subject;
        uint64_t done, total; /* bytes; total 0: not known yet */
} ProgressBar;

typedef struct Progress {
        const char *key, *subject; /* of the whole: "vm", "vm1" */
        const ProgressBar *disks;
        size_t disk_count;
        uint64_t rate;             /* bytes/s */
        const char *waits;         /* for what; NULL: it goes on */
} Progress;

/* A bar for each disk, where there are several, and one for all, drawn anew; those that the terminal has no room for are
 * left out from the front. As json: one line with what a program needs to show the same, on stderr whatever that is. */
void progress_show(const Progress *progress, bool json);

/* Takes them away, before other words and at the end. */
void progress_clear(void);
