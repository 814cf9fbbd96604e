/* fs/command-line/hand-over.h - work that somebody else finishes where it does not end when it is told to.
 *
 * Some waits cannot be cut short: for a name server, for a libvirtd that hangs. Ctrl-C ends the command all the same. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "util/reason.h"

typedef struct HandOver {
        int (*work)(void *context);
        void *context;
        const atomic_bool *cancel; /* tells it to end */
        atomic_bool ending;        /* set by the work once it takes down what it began: it may need a little longer then */
} HandOver;

/* Does the work in a thread of its own, and returns what it returned. -EINPROGRESS: it was told to end and goes on with all
 * that it was given: the process must end now, with _exit(2). */
int hand_over_run(HandOver *hand_over, Reason *reterr);
