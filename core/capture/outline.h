/* core/capture/outline.h - what the source told of a disk's extents when it was looked over, kept until the disk is copied:
 * a source may take its time to tell, and is asked once. What there is no room for is asked again.
 *
 * Threads: one at a time. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sources/source.h"

#define OUTLINE_ROOM (16u << 20) /* bytes, for all disks of a capture together */

typedef struct OutlineWindow {
        uint64_t start, length;
        SourceExtents extents;
} OutlineWindow;

typedef struct Outline {
        OutlineWindow *windows; /* in the order of the disk */
        size_t count, capacity;
        size_t next;            /* to be taken; those before are gone */
        size_t *room, used;     /* bytes: what is left for all outlines, borrowed; what this one has of it */
} Outline;

/* Forgets all; more may be kept in it. */
void outline_clear(Outline *outline);

/* Takes over the extents of a window behind those before, as far as there is room, and leaves none in *extents then. */
void outline_keep(Outline *outline, uint64_t start, uint64_t length, SourceExtents *extents);

/* Whether exactly this window was kept: *ret gets its extents, in place of what it had. Windows are taken in order. */
bool outline_take(Outline *outline, uint64_t start, uint64_t length, SourceExtents *ret);
