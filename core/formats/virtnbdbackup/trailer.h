/* core/formats/virtnbdbackup/trailer.h - the sizes of compressed payloads, from the JSON at a stream's end.
 *
 * An array with an entry for each data frame, in their order: the size of its one LZ4 frame, or {"TOTAL": [SIZE, …]} where
 * it has several. It grows with the disk, so it is read piece by piece as it is needed, and not by a JSON parser.
 * Threads: immutable but for the window, which belongs to one. */
#pragma once

#include <stdbool.h>

#include "formats/virtnbdbackup/shape.h"
#include "formats/virtnbdbackup/window.h"

typedef struct TrailerEntry {
        uint64_t size; /* bytes of the whole payload */
        bool is_list;  /* sizes of the LZ4 frames follow, to be had by trailer_next_part() */
} TrailerEntry;

/* *at is where in the stream to go on, shape->trailer for the first entry; it moves behind what has been read. 1, 0 where
 * there is no more, -EBADMSG where it is no such JSON, -EIO. */
int trailer_next(const Shape *shape, Window *window, uint64_t *at, TrailerEntry *ret, Reason *reterr);
int trailer_next_part(const Shape *shape, Window *window, uint64_t *at, uint64_t *ret_size, Reason *reterr);
