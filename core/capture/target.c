#include "capture/target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "util/cleanup.h"

#define RESERVE_SIZE (256 << 10) /* bytes */
#define TRIES_MAX 5              /* beyond the first: some seconds in all */
#define FIRST_PAUSE_MS 100u      /* twice as long each time */
#define WAIT_MS 1000u            /* until space is looked for again */

void target_init(Target *target, Vm *vm, const CaptureOptions *options, const Stop *stop) {
        *target = (Target) { .options = options, .vm = vm_name(vm), .stop = stop, .reserve_fd = -1 };
}

/* Where that cannot be had, it is done without. */
void target_begin(Target *target, Reporter *reporter, int root_fd) {
        target->reporter = reporter;
        if (target->options->on_target_error != TARGET_ERROR_WAIT)
                return;
        target->reserve_fd = openat(root_fd, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
        if (target->reserve_fd >= 0)
                (void) posix_fallocate(target->reserve_fd, 0, RESERVE_SIZE);
}

void target_end(Target *target) {
        close_fd(&target->reserve_fd);
        target->reserve_fd = -1;
}

static int wait_for_space(Target *target, const char *words) {
        char line[2 * REASON_MAX];

        if (!target->waits) {
                target_end(target);
                snprintf(line, sizeof line, "%s: waits for space: %s", target->vm, words);
                reporter_set_waits(target->reporter, words);
                if (target->options->warn)
                        target->options->warn(target->options->context, line);
        }
        target->waits = true;
        return stop_pause(target->stop, WAIT_MS);
}

int target_stuck(void *context, unsigned times, int rc, const char *words) {
        Target *target = context;

        if (target->options->on_target_error == TARGET_ERROR_REPORT || stop_requested(target->stop))
                return rc;
        if (target->options->on_target_error == TARGET_ERROR_WAIT && (rc == -ENOSPC || rc == -EDQUOT))
                return wait_for_space(target, words);
        return times < TRIES_MAX ? stop_pause(target->stop, FIRST_PAUSE_MS << times) : rc;
}

void target_went_on(Target *target) {
        if (target->waits)
                reporter_set_waits(target->reporter, NULL);
        target->waits = false;
}
