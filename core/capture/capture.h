/* core/capture/capture.h - takes one backup of one VM: the next restore point.
 *
 * Order (which is what makes a failed capture lose nothing): lock; end leftovers; inspect; begin; copy; sync; make
 * visible; end the job; delete checkpoints that no visible point needs; unlock. A guardian process (guardian.h) does
 * the ending if this process is killed. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "codec/codec.h"
#include "repository/capture-state.h"
#include "repository/manifest.h"
#include "repository/repository.h"
#include "util/reason.h"

typedef enum CaptureWish {
        CAPTURE_AUTO,        /* incremental where possible, else full, saying why */
        CAPTURE_FULL,
        CAPTURE_INCREMENTAL, /* or fail, saying why */
} CaptureWish;
const char *capture_wish_name(CaptureWish wish);

typedef struct CaptureOptions {
        CaptureWish wish;
        const Codec *codec;
        uint32_t block_size;
        const char *scratch_directory;     /* NULL: the source's choice */
        const char *const *guardian_argv;  /* how to start a guardian; see guardian.h */
        const atomic_bool *cancel;         /* set from a signal handler: ends the capture cleanly with -ECANCELED */

        /* All may be NULL. Called from the caller's thread but for progress, which comes from one other. */
        void (*accepted)(void *context);                                 /* the lock is held, the state says running */
        void (*warn)(void *context, const char *line);                   /* one line for the user */
        void (*progress)(void *context, const CaptureState *state);      /* about twice a second */
        void *context;
} CaptureOptions;

/* Takes the backup; *ret is the new point's manifest. -EBUSY: another capture of this VM runs (the state is left
 * alone); -EROFS: the repository or the VM cannot capture; -ECANCELED; else as the source or the disk failed. */
int capture_run(Vm *vm, const CaptureOptions *options, Manifest **ret, Reason *reterr);
