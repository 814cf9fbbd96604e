/* core/formats/qcow2/bitmaps.h - the persistent bitmaps that a qcow2 image holds: their names, for people. */
#pragma once

#include "formats/qcow2/header.h"
#include "util/reason.h"

/* "a, b (not saved)"; NULL where there are none. The caller frees *ret. -EBADMSG, and I/O errors. */
int qcow2_bitmaps_describe(ByteStore *image, const Qcow2Header *header, char **ret, Reason *reterr);
