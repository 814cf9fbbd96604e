/* core/capture/capture.h - takes one backup of one VM: the next restore point.
 *
 * Order (which is what makes a failed capture lose nothing): lock; end leftovers; inspect; begin; copy; sync; make
 * visible; end the job; delete checkpoints that no visible point needs; unlock. A guardian process (guardian.h) does
 * the ending if this process is killed. */
#pragma once

#include "capture/options.h"
#include "repository/manifest.h"
#include "repository/repository.h"
#include "util/reason.h"

/* Takes the backup; *ret is the new point's manifest. 1: less than the threshold changed, no point was made, and reterr says
 * how much it was. -EBUSY: another capture of this VM runs (the state is left alone); -EROFS: the repository or the VM cannot
 * capture; -ECANCELED; else as the source or the disk failed. */
int capture_run(Vm *vm, const CaptureOptions *options, Manifest **ret, Reason *reterr);
