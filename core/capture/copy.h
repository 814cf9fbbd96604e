/* core/capture/copy.h - brings the bytes of all disks of a job that has begun into the new point's layers: looks them
 * over first, so that what there is to do is known before it is done, then copies disk after disk. All disks show the
 * moment of the job, whenever they are read. */
#pragma once

#include "capture/base.h"
#include "capture/outline.h"
#include "capture/reporter.h"
#include "capture/stop.h"
#include "capture/target.h"

/* All borrowed. */
typedef struct Copy {
        Vm *vm;
        Source *source;
        const SourceVm *source_vm;
        Base *base;
        Stop *stop;
        Reporter *reporter;
        Target *target;
        const CaptureOptions *options;
        /* Of the survey, not borrowed: */
        Outline *outlines; /* for each disk */
        size_t outline_room;
} Copy;
void copy_clear(Copy *copy);

/* Finds out how much there is to read, and has changed. Where a disk is not what its parent's point says, it is given up in
 * the base. */
int copy_survey(Copy *copy, Reason *reterr);

/* Writes the layers into data/CAPTURE, synced, and the disks into the manifest. */
int copy_run(const Copy *copy, Manifest *manifest, Reason *reterr);
