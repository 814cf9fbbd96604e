/* fs/command-line/disk-progress.h - shows how restores and exports go: bars of their disks and a rate. Threads: one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "restore/restore.h"

typedef struct DiskProgress {
        const char *path; /* what is restored, as the user named it */
        bool json;
        uint64_t began;   /* ms, of clock_now_ms() */
        uint64_t found;   /* bytes that were done before we began */
        bool began_at_all;
} DiskProgress;

/* data: a DiskProgress, of which the caller has set the first two. */
void disk_progress_show(DiskProgress *data, const RestoreProgress *disks, size_t count);
