/* core/formats/virtnbdbackup/cursor.h - goes through a stream from run to run.
 *
 * A run is a piece of the disk that is zero, or stored in one place: a data frame, or one of the LZ4 frames in it. Going on
 * costs a read of a few bytes, whatever lies between. Where the sizes of compressed payloads are lost or wrong they are
 * found by looking at the payloads.
 * Threads: a cursor is a plain value. */
#pragma once

#include <stdbool.h>

#include "formats/virtnbdbackup/shape.h"
#include "formats/virtnbdbackup/window.h"

typedef struct Run {
        uint64_t start, length;  /* bytes of the disk; length is not 0 */
        uint64_t offset, stored; /* of the stream: where its bytes or its LZ4 frame lie */
        bool is_zero;
} Run;

typedef struct Cursor {
        uint64_t at;          /* in the stream: of the next frame's header, or of the next LZ4 frame */
        uint64_t reached;     /* end of the last run, bytes of the disk */
        uint64_t frame_end;   /* end of the data frame that it is in, bytes of the disk; <= reached: in none */
        uint64_t payload_end; /* end of that frame's payload, in the stream; UINT64_MAX: not known */
        uint64_t step;        /* bytes of the disk in each of its LZ4 frames but the last */
        uint64_t trailer;     /* in the stream: of the next entry in the list of sizes */
        bool measures;        /* the LZ4 frames of this data frame are measured */
        bool in_list;         /* their sizes follow in the list */
        bool trailer_lost;    /* it does not fit from here on */
        bool after_payload;   /* the two bytes that end a payload come next */
} Cursor;

Cursor cursor_begin(const Shape *shape);

/* The next run: 1; 0 where the stream ends as it should. -EBADMSG: it is broken here; all that follows the last run is lost.
 */
int cursor_next(const Shape *shape, Cursor *cursor, Window *window, Window *trailer_window, Run *ret, Reason *reterr);
