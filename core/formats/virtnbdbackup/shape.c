#include "formats/virtnbdbackup/shape.h"

#include <string.h>

#include "formats/virtnbdbackup/frame.h"

int shape_read(ByteStore *bytes, const Metadata *metadata, uint64_t grown_from, Shape *ret, Reason *reterr) {
        uint64_t size = byte_store_size(bytes);
        unsigned char end[FRAME_END_LENGTH + FRAME_HEADER_LENGTH]; /* the last header, and what ends the JSON before it */
        Frame frame;
        int rc;

        *ret = (Shape) {
                .bytes = bytes,
                .disk_size = metadata->size,
                .frames = metadata->end,
                .zero_from = metadata->incremental ? grown_from : 0,
                .compressed = metadata->compressed,
        };
        if (size - metadata->end < FRAME_HEADER_LENGTH) /* metadata->end <= size */
                return 0;
        rc = byte_store_read(bytes, end, sizeof end, size - sizeof end, reterr);
        if (rc < 0)
                return rc;
        if (!frame_parse(end + FRAME_END_LENGTH, &frame))
                return 0;
        if (frame.kind == FRAME_COMP && metadata->compressed && frame.length <= size - metadata->end - sizeof end &&
            memcmp(end, FRAME_END, FRAME_END_LENGTH) == 0) {
                ret->has_trailer = true;
                ret->trailer_end = size - sizeof end;
                ret->trailer = ret->trailer_end - frame.length;
        }
        ret->ends = frame.kind == FRAME_STOP || ret->has_trailer;
        return 0;
}
