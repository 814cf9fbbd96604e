#include "command-line/disk-progress.h"

#include <stdlib.h>

#include "command-line/progress.h"
#include "util/cleanup.h"
#include "util/clock.h"

static uint64_t bytes_per_second(DiskProgress *data, uint64_t done) {
        uint64_t now = clock_now_ms(), ms;

        if (!data->began_at_all) {
                data->began_at_all = true;
                data->began = now;
                data->found = done;
        }
        ms = now - data->began;
        return ms > 0 && done > data->found ? (done - data->found) * 1000 / ms : 0;
}

void disk_progress_show(DiskProgress *data, const RestoreProgress *disks, size_t count) {
        CLEANUP(freep) ProgressBar *bars = calloc(count + 1, sizeof *bars);
        Progress progress = { .key = "path", .subject = data->path, .disks = bars, .disk_count = count };
        uint64_t done = 0;

        if (!bars)
                return;
        for (size_t i = 0; i < count; i++) {
                bars[i] = (ProgressBar) { disks[i].disk, disks[i].done, disks[i].total };
                done += disks[i].done;
        }
        progress.rate = bytes_per_second(data, done);
        progress_show(&progress, data->json);
}
