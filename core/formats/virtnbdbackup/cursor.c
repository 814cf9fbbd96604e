#include "formats/virtnbdbackup/cursor.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/virtnbdbackup/frame.h"
#include "formats/virtnbdbackup/lz4-header.h"
#include "formats/virtnbdbackup/trailer.h"
#include "util/bytes.h"

typedef struct Walk {
        const Shape *shape;
        Cursor *cursor;
        Window *window, *trailer;
} Walk;

Cursor cursor_begin(const Shape *shape) {
        return (Cursor) { .at = shape->frames, .trailer = shape->trailer, .trailer_lost = !shape->has_trailer };
}

static int damaged(const Walk *walk, uint64_t at, const char *what, Reason *reterr) {
        return fail(reterr, -EBADMSG, "%s is damaged: the frame at %" PRIu64 ": %s", byte_store_name(walk->shape->bytes), at,
                    what);
}

/* Whether a payload that ends here is followed by what has to follow. */
static bool is_followed(const Walk *walk, uint64_t end) {
        const unsigned char *bytes;
        Frame frame;

        return window_get(walk->window, walk->shape->bytes, end, FRAME_END_LENGTH + FRAME_HEADER_LENGTH, UINT64_MAX, &bytes,
                          NULL) == 0 &&
               memcmp(bytes, FRAME_END, FRAME_END_LENGTH) == 0 && frame_parse(bytes + FRAME_END_LENGTH, &frame);
}

static int skip_list(const Walk *walk, uint64_t *at) {
        uint64_t size;
        int rc;

        do
                rc = trailer_next_part(walk->shape, walk->trailer, at, &size, NULL);
        while (rc > 0);
        return rc;
}

/* Takes the entry of the data frame that has just been entered off the list. Where that does not fit the payload is
 * measured. */
static int take_sizes(const Walk *walk, Reason *reterr) {
        Cursor *cursor = walk->cursor;
        uint64_t next = cursor->trailer, end;
        TrailerEntry entry;
        Lz4Header header;
        int rc;

        cursor->measures = true;
        cursor->payload_end = UINT64_MAX;
        if (cursor->trailer_lost)
                return 0;
        rc = trailer_next(walk->shape, walk->trailer, &next, &entry, reterr);
        if (rc < 0 && rc != -EBADMSG)
                return rc;
        if (rc <= 0) {
                cursor->trailer_lost = true;
                return 0;
        }
        header.content = cursor->frame_end - cursor->reached;
        if ((!entry.is_list ||
             lz4_header_read(walk->shape->bytes, walk->window, cursor->at, UINT64_MAX, &header, NULL) == 0) &&
            !__builtin_add_overflow(cursor->at, entry.size, &end) && is_followed(walk, end)) {
                cursor->measures = false;
                cursor->payload_end = end;
                cursor->step = header.content;
                cursor->in_list = entry.is_list;
        } else if (entry.is_list && skip_list(walk, &next) < 0)
                cursor->trailer_lost = true;
        cursor->trailer = next;
        return 0;
}

/* The next LZ4 frame's size as the list has it. */
static int take_stored(const Walk *walk, uint64_t *ret, Reason *reterr) {
        Cursor *cursor = walk->cursor;
        uint64_t left = cursor->payload_end - cursor->at;
        int rc;

        if (!cursor->in_list) {
                *ret = left;
                return 0;
        }
        rc = trailer_next_part(walk->shape, walk->trailer, &cursor->trailer, ret, reterr);
        if (rc < 0)
                return rc;
        if (rc == 0 || *ret > left)
                return damaged(walk, cursor->at, "the list of sizes does not fit", reterr);
        return 0;
}

/* Its size and what it holds, as it says itself. */
static int measure(const Walk *walk, uint64_t *ret_stored, uint64_t *ret_length, Reason *reterr) {
        const Shape *shape = walk->shape;
        Lz4Header header;
        int rc;

        rc = lz4_header_read(shape->bytes, walk->window, walk->cursor->at, UINT64_MAX, &header, reterr);
        if (rc < 0)
                return rc;
        *ret_length = header.content;
        return lz4_frame_measure(shape->bytes, walk->window, walk->cursor->at, byte_store_size(shape->bytes), &header,
                                 ret_stored, reterr);
}

/* The next LZ4 frame of the data frame that the cursor is in. */
static int next_lz4(const Walk *walk, Run *ret, Reason *reterr) {
        Cursor *cursor = walk->cursor;
        uint64_t left = cursor->frame_end - cursor->reached, stored, length, end;
        int rc;

        if (cursor->measures)
                rc = measure(walk, &stored, &length, reterr);
        else {
                length = min_u64(cursor->step, left);
                rc = take_stored(walk, &stored, reterr);
        }
        if (rc < 0)
                return rc;
        if (length > left)
                return damaged(walk, cursor->at, "it holds more than its header says", reterr);
        end = cursor->at + stored;
        if (length == left) {
                uint64_t none;

                if (cursor->in_list && trailer_next_part(walk->shape, walk->trailer, &cursor->trailer, &none, reterr) != 0)
                        return damaged(walk, cursor->at, "the list of sizes does not fit", reterr);
                if (!cursor->measures && end != cursor->payload_end)
                        return damaged(walk, cursor->at, "the list of sizes does not fit", reterr);
                cursor->in_list = false;
                cursor->after_payload = true;
        }
        *ret = (Run) { .start = cursor->reached, .length = length, .offset = cursor->at, .stored = stored };
        cursor->at = end;
        cursor->reached += length;
        return 1;
}

/* The header that comes next. */
static int take_header(const Walk *walk, Frame *ret, Reason *reterr) {
        Cursor *cursor = walk->cursor;
        size_t skip = cursor->after_payload ? FRAME_END_LENGTH : 0;
        const unsigned char *bytes;
        int rc;

        rc = window_get(walk->window, walk->shape->bytes, cursor->at, skip + FRAME_HEADER_LENGTH, UINT64_MAX, &bytes,
                        reterr);
        if (rc < 0)
                return rc;
        if (memcmp(bytes, FRAME_END, skip) != 0 || !frame_parse(bytes + skip, ret))
                return damaged(walk, cursor->at, "there is none", reterr);
        if (ret->kind == FRAME_STOP)
                return 0;
        if (ret->kind != FRAME_DATA && ret->kind != FRAME_ZERO)
                return damaged(walk, cursor->at, "it is of a kind that does not belong here", reterr);
        if (ret->length == 0 || ret->start < cursor->reached)
                return damaged(walk, cursor->at, "it is empty, or begins before the last one's end", reterr);
        if (ret->start > walk->shape->disk_size || ret->length > walk->shape->disk_size - ret->start)
                return damaged(walk, cursor->at, "it passes the disk's end", reterr);
        cursor->at += skip + FRAME_HEADER_LENGTH;
        cursor->after_payload = false;
        return 0;
}

int cursor_next(const Shape *shape, Cursor *cursor, Window *window, Window *trailer_window, Run *ret, Reason *reterr) {
        Walk walk = { shape, cursor, window, trailer_window };
        Frame frame;
        int rc;

        if (cursor->reached < cursor->frame_end)
                return next_lz4(&walk, ret, reterr);
        rc = take_header(&walk, &frame, reterr);
        if (rc < 0)
                return rc;
        if (frame.kind == FRAME_STOP)
                return 0;
        cursor->reached = frame.start;
        if (frame.kind == FRAME_DATA && shape->compressed) {
                cursor->frame_end = frame.start + frame.length;
                rc = take_sizes(&walk, reterr);
                return rc < 0 ? rc : next_lz4(&walk, ret, reterr);
        }
        *ret = (Run) {
                .start = frame.start, .length = frame.length, .offset = cursor->at, .is_zero = frame.kind == FRAME_ZERO,
        };
        if (!ret->is_zero) {
                uint64_t size = byte_store_size(shape->bytes);

                if (frame.length > size - cursor->at)
                        return damaged(&walk, cursor->at, "its payload has been cut off", reterr);
                ret->stored = frame.length;
                cursor->at += frame.length;
                cursor->after_payload = true;
        }
        cursor->reached += frame.length;
        return 1;
}
