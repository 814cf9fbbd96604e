/* core/formats/qcow2/image-name.h - what the name of an image file says by itself.
 *
 *     TIME.CHECKPOINT.DISK.full|incremental.qcow2   oVirt's backup example
 *     STEM.qcow2.SUFFIX (or .img, .raw)             libvirt's push backups of STEM.qcow2, where no file is named for them:
 *                                                   the suffix is the checkpoint, or the time in seconds
 *     FULL|INC|COPY-TIME[-DISK][.qcow2]             qmpbackup, time in seconds
 *     DISK.POINT.qcow2                              our own exports; a point is called 2026-11-20T010203Z, or that and -02
 *
 * Neither libvirt nor qmpbackup says in an incremental backup which one it is based on (libvirt names the VM's own disk as
 * the backing file): any of the series since the one that the tool was told will do. So the one before it is right. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

typedef struct ImageName {
        char *disk, *label, *checkpoint; /* NULL: not said; label: what tells the point */
        char *series;                    /* backups of the same series that follow each other; NULL: it is in none */
        struct timespec time;            /* 0: not said */
        bool incremental;                /* it says that it is based on another one */
} ImageName;

int image_name_parse(const char *name, ImageName *ret); /* -ENOMEM */
void image_name_clear(ImageName *name);

/* How long a name is without the extension, if it has one that images have. */
size_t image_stem_length(const char *name);
