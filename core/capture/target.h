/* core/capture/target.h - patience with a repository that cannot be written to, as the policy has it.
 *
 * A full disk that is waited out is told in the state, for which a little room is kept. Threads: the capture's. */
#pragma once

#include "capture/options.h"
#include "capture/reporter.h"
#include "capture/stop.h"
#include "formats/byte-store.h"

typedef struct Target {
        const CaptureOptions *options; /* all borrowed */
        const char *vm;
        Reporter *reporter;
        const Stop *stop;
        int reserve_fd;                /* of a file without a name that is given up for the state; -1: none */
        bool waits;
} Target;

void target_init(Target *target, Vm *vm, const CaptureOptions *options, const Stop *stop);
/* root_fd: a directory of the repository. reporter: is told what is waited for. */
void target_begin(Target *target, Reporter *reporter, int root_fd);
void target_end(Target *target);

/* As ByteSink's stuck. */
int target_stuck(void *context, unsigned times, int rc, const char *words);
/* Something has been written. */
void target_went_on(Target *target);
