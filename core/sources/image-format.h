/* core/sources/image-format.h - in which format an image is, told by its own first bytes.
 *
 * A guest can write anything into a raw image, a header of another format too, which then names files that the guest should
 * not see. So nothing is opened here that a header names, QEMU is not asked, and an image whose header names another file
 * (a backing file, a data file, extents) is never guessed to be what it looks like: the user has to say. What is guessed is
 * settled once, when a VM is registered, and not again. */
#pragma once

#include "util/reason.h"

/* *ret: "qcow2", …, as QEMU calls it; what looks like nothing else is "raw". A text that stays. -ENOTSUP: the format has
 * to be said. */
int image_format_guess(const char *path, const char **ret, Reason *reterr);
