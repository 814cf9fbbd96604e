/* core/formats/qcow2/naming.h - of which disk and which point an image is, as far as names of files tell.
 *
 *     TIME.CHECKPOINT.DISK.full|incremental.qcow2   oVirt's backup example: point by time and checkpoint
 *     STEM.qcow2.SUFFIX (or .img, .raw)             libvirt, where no file is named for a push backup: the suffix is the
 *                                                   checkpoint or the time of the backup in seconds
 *     any other                                     the disk is the stem of the base; the point what the name has beyond that
 *                                                   all of a chain begin with (vda, vda.monday, vda.tuesday: "", "monday", "tuesday")
 *
 * Labels are the same for disks that are named alike, and different for the images of one chain. */
#pragma once

#include <time.h>

#include "formats/qcow2/family.h"

/* What a name says by itself. */
typedef struct ImageName {
        char *disk, *label, *checkpoint; /* NULL: not said */
        struct timespec time;            /* 0: not said */
        bool incremental;                /* it says that it is based on another one */
} ImageName;

int image_name_parse(const char *name, ImageName *ret); /* -ENOMEM */
void image_name_clear(ImageName *name);

/* Sets label of all images and disk of all bases. -ENOMEM. */
int family_name(Family *family);
