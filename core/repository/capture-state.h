/* core/repository/capture-state.h - how the capture of a VM goes, for all who look: the trigger's text.
 *
 * vms/NAME/state.json is replaced by the capture that holds the lock, about once a second and at each change. Says it
 * "running" while nobody holds the lock, the capture was killed: that reads as failed. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "repository/vm.h"

typedef enum CapturePhase {
        CAPTURE_IDLE,
        CAPTURE_RUNNING,
        CAPTURE_FAILED,
} CapturePhase;

typedef struct CaptureDiskProgress {
        char *name;
        uint64_t done, total; /* bytes of the disk that this capture reads */
} CaptureDiskProgress;

typedef struct CaptureState {
        CapturePhase phase;
        char *kind;              /* a kind of point, or "auto"; NULL before the first capture */
        struct timespec started; /* valid with kind; as exact as the clock, so that no two captures have the same text */
        CaptureDiskProgress *disks;
        size_t disk_count;
        uint64_t rate;            /* bytes a second, lately; when ended: of the whole */
        char *waits;              /* while running: for what it waits, one line; or NULL */
        char *last;               /* after a success: the point */
        struct timespec finished; /* valid with last and error */
        char *error;              /* after a failure: one line */
} CaptureState;

/* Frees what is in it, not itself. */
void capture_state_clear(CaptureState *state);

/* As stored, with the correction above. No state yet: idle. A damaged file reads as failed and says so. */
int capture_state_read(Vm *vm, CaptureState *ret, Reason *reterr);
int capture_state_write(Vm *vm, const CaptureState *state, Reason *reterr);

/* "state: running\nkind: …\n…" as the trigger shows it. The caller frees *ret. */
int capture_state_format(const CaptureState *state, char **ret, size_t *ret_length);
