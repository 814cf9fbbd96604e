/* core/capture/options.h - how a capture is wanted: what it takes, what it may cost, and whom it tells. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "codec/codec.h"
#include "repository/capture-state.h"
#include "sources/source.h"

typedef enum CaptureWish {
        CAPTURE_AUTO,        /* incremental where possible, by comparing where there is no bitmap; else full, saying why */
        CAPTURE_FULL,
        CAPTURE_INCREMENTAL, /* by a bitmap, or fail, saying why */
        CAPTURE_DIFFERENTIAL, /* what changed since the last full point; where that cannot be, as for auto */
} CaptureWish;
const char *capture_wish_name(CaptureWish wish);

/* What is done about a range that the source cannot deliver, as QEMU's backup job has it. */
typedef enum SourceErrorPolicy {
        SOURCE_ERROR_REPORT, /* the capture fails */
        SOURCE_ERROR_RETRY,  /* it fails after some tries */
        SOURCE_ERROR_SKIP,   /* after some tries the range is recorded as unreadable */
} SourceErrorPolicy;

/* And about a layer that cannot be written. */
typedef enum TargetErrorPolicy {
        TARGET_ERROR_REPORT,
        TARGET_ERROR_RETRY,
        TARGET_ERROR_WAIT,   /* a full disk is waited out, as long as it takes; the state says so */
} TargetErrorPolicy;

typedef struct CaptureOptions {
        CaptureWish wish;
        const Codec *codec;
        int codec_level;                   /* 0: the codec's own default */
        uint32_t block_size;
        size_t memory;                     /* bytes at most of what has been read and is not yet written; 0: 64 MiB */
        uint64_t rate;                     /* bytes/s at most that are read; 0: no limit */
        uint64_t threshold;                /* bytes: where less changed nothing is captured; 0: always */
        SourceErrorPolicy on_source_error;
        TargetErrorPolicy on_target_error;
        SourceFreeze freeze;
        bool pause;
        bool top;                          /* only what is above the backing file */
        bool no_zero_detection;            /* the source is not asked what is zero */
        bool compare;                      /* all is read again, from the source and as the point shows it */
        const char *source;                /* in place of the VM's own, this time; NULL: that */
        const char *scratch_directory;     /* NULL: the source's choice */
        const char *const *guardian_argv;  /* how to start a guardian; see guardian.h */
        const atomic_bool *cancel;         /* set from a signal handler: ends the capture cleanly with -ECANCELED */

        /* All may be NULL. Called from the caller's thread but for progress, which comes from another until the end. */
        void (*accepted)(void *context);                                 /* the lock is held, the state says running */
        void (*warn)(void *context, const char *line);                   /* one line for the user */
        void (*progress)(void *context, const CaptureState *state);      /* about twice a second, and at the end */
        void (*ending)(void *context);                                   /* nothing is copied any more; the job is ended */
        void *context;
} CaptureOptions;
