/* core/export/behind.h - writes a file front to back, behind whoever makes what is written.
 *
 * It is gathered in pieces, which threads of its own write around the page cache, into room that is set aside ahead.
 * Threads: its functions belong to one. */
#pragma once

#include <stddef.h>

#include "util/cleanup.h"
#include "util/direct.h"
#include "util/reason.h"

typedef struct Behind Behind;

/* An empty file, which stays the caller's. name: for people; borrowed. -EAGAIN: no thread can be had. */
int behind_new(const DirectFile *file, const char *name, Behind **ret, Reason *reterr);
/* Waits for what is under way. Always NULL. */
Behind *behind_free(Behind *behind);
DEFINE_CLEANUP(Behind, behind_free)

/* What failed before fails all that follows. */
int behind_write(Behind *behind, const void *bytes, size_t length, Reason *reterr);
/* Everything is in the file, and nothing else is. Only behind_free() may follow. */
int behind_finish(Behind *behind, Reason *reterr);
