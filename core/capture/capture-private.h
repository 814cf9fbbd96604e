/* core/capture/capture-private.h - what the files of a capture share.
 *
 * capture.c        the order of it all
 * capture-begin.c  from the lock to a job that runs: the source, what to start from, the checkpoint
 * capture-kind.c   full, incremental or differential: what was asked for, and what can be
 * capture-end.c    the end of the job, after a new point and after none */
#pragma once

#include "capture/base.h"
#include "capture/capture.h"
#include "capture/draft.h"
#include "capture/guardian.h"
#include "capture/reporter.h"
#include "capture/stop.h"
#include "capture/target.h"
#include "capture/watcher.h"

/* One capture, from the lock on. */
typedef struct Run {
        Vm *vm;
        const CaptureOptions *options;
        Stop stop;
        Reporter *reporter;
        Guardian *guardian;
        Watcher *watcher;
        Source *source;
        SourceVm source_vm;
        char newest[POINT_NAME_MAX]; /* of the points before; "" where there is none */
        Base base;
        char *checkpoint;            /* the new one's name; set once a job may be there */
        bool began;                  /* the job is there for sure */
        Draft draft;
        Target target;               /* begun once the state can be told */
        bool job_stays;              /* it could not be ended */
        bool over;                   /* no more to be said about what is captured */
} Run;

void capture_warn(const Run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Opens the source, ends what earlier captures left there, chooses what to start from and begins the job. */
int capture_begin(Run *run, struct timespec *ret_moment, Reason *reterr);

/* -ESTALE, saying why, where only an incremental point is wanted and this one cannot be or has no bitmap to be so by. */
int capture_fall_back_to_full(Run *run, const Reason *why, Reason *reterr);
int capture_require_bitmap(const Run *run, Reason *reterr);

/* Once all disks were looked over: the manifest gets its kind and parent. A point without a disk that starts from another is
 * a full one. */
int capture_settle_kind(Run *run, Reason *reterr);
/* Tells of each disk of a point with a parent that no bitmap told about. */
void capture_tell_ways(const Run *run);

/* The point is there: what fails now is for the guardian or the next capture to put right. */
void capture_end_well(Run *run);
/* No point is wanted: all is as if this had not been. */
void capture_end_without_point(Run *run);
/* Leaves everything as it was before. The cause, which may become clearer, is told; what fails here is not. */
void capture_end_badly(Run *run, int rc, Reason *reason);
