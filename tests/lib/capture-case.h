/* tests/lib/capture-case.h - a repository with one VM, vm1, of the fake source, and captures of it. */
#pragma once

#include "capture/capture.h"
#include "fake-source.h"
#include "util/cleanup.h"

typedef struct CaptureCase {
        char directory[64];
        Repository *repository;
        Vm *vm;
        FakeVm *fake;
        uint32_t block_size;
        bool compare;
        size_t memory;
        uint64_t rate;
        bool top, no_zero_detection;
        uint64_t threshold;
        SourceErrorPolicy on_source_error;
        char warnings[4096]; /* of the last capture, a line each */
        unsigned accepted;   /* how often, in the last capture */
        Manifest *newest;    /* of the last capture that succeeded */
        Reason reason;       /* of the last that made no point */
} CaptureCase;

/* To be called first in main(): this program is the guardian too. cancel is given to every capture. */
void capture_case_main(int argc, char **argv);

void capture_case_begin(CaptureCase *test);
void capture_case_end(CaptureCase *test);

/* Forgets what has been read so far, as another process would. */
void capture_case_reopen(CaptureCase *test);

int capture_case_take(CaptureCase *test, CaptureWish wish);

/* Checks every byte of the newest point against the job's moment, its sizes, that there is no job, no data of other
 * captures, and no checkpoint but those that it names. */
void capture_case_check(CaptureCase *test);

/* That nothing of the capture that failed is left: no job, no data, and the newest point's checkpoint is there. */
void capture_case_check_failed(CaptureCase *test, const char *why);

/* A process takes a capture and is killed at a request. Comes back when the guardian has gone. */
void capture_case_kill(CaptureCase *test, unsigned at_request);
