/* core/machine/overlay.h - an image that takes what a guest writes, above a raw disk that is only read. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "util/reason.h"

/* qcow2, of this user alone. size: of the disk, bytes. -ENOENT where the mount does not show it. */
int overlay_make(const char *path, const char *backing, uint64_t size, const atomic_bool *cancel, Reason *reterr);

/* Puts the raw disk below an image again that had lost it; nothing may have it open. */
int overlay_attach(const char *path, const char *backing, const atomic_bool *cancel, Reason *reterr);
