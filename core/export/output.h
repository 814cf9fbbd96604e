/* core/export/output.h - where an export is written, front to back: a new file, or standard output. Threads: one. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "export/behind.h"
#include "restore/partial.h"
#include "util/reason.h"

typedef struct Output {
        Partial partial;  /* its descriptor -1: standard output */
        DirectFile file;  /* what partial has open, and one more */
        Behind *behind;
        const char *name; /* for people; borrowed */
        const atomic_bool *cancel;
        int fd;           /* of standard output */
        bool own_fd;
} Output;

/* target: a path, or "-". -EEXIST, -EBUSY, …; -EINVAL: standard output is a terminal. */
int output_open(const char *target, bool replace, const atomic_bool *cancel, Output *ret, Reason *reterr);
/* -ECANCELED also while whoever reads the other end takes nothing. */
int output_write(Output *output, const void *bytes, size_t length, Reason *reterr);
/* The file is whole: it is synced and gets its name. */
int output_finish(Output *output, Reason *reterr);
/* What was not finished is removed. */
void output_clear(Output *output);
