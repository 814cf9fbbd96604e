/* fs/files/filesystem-tools.h - mounts the file system in an image, read-only, with what this machine offers.
 *
 * Root: the kernel, through a loop device. Others, and where the kernel has no driver: programs for FUSE. A journal is never
 * replayed: the image cannot be written to.
 * Threads: one. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "util/reason.h"

/* Whether files can be in it at all: swap space has none, and a physical volume of LVM has volumes. */
bool filesystem_has_files(const char *type);

/* type: as blkid(8) names it. -ENOTSUP where nothing here can mount it: the words name what could. */
int filesystem_mount(const char *type, const char *image, const char *target, const atomic_bool *cancel, Reason *reterr);
