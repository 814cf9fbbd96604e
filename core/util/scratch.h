/* core/util/scratch.h - buffers that a thread keeps, because a fresh large one costs more than what is done in it. */
#pragma once

#include <stddef.h>

/* Each thread has one buffer for each of these, as one is filled from the other. */
typedef enum ScratchUse {
        SCRATCH_STORED, /* bytes as they are stored */
        SCRATCH_PIECE,  /* unpacked, where only a part of it or what comes behind is wanted */
        SCRATCH_ANSWER, /* what somebody asked for */
        SCRATCH_USES,
} ScratchUse;

/* At least length bytes, aligned to pages; what was in it is lost with the next call for the same use in the same thread,
 * and it goes with the thread. NULL: no memory. */
void *scratch_get(ScratchUse use, size_t length);
