#include "formats/virtnbdbackup/window.h"

#include <errno.h>
#include <inttypes.h>

#include "util/bytes.h"

int window_get(Window *window, ByteStore *bytes, uint64_t offset, size_t length, uint64_t limit, const unsigned char **ret,
               Reason *reterr) {
        limit = min_u64(limit, byte_store_size(bytes));
        if (offset > limit || length > limit - offset)
                return fail(reterr, -EBADMSG, "%s has been cut off: there is nothing at %" PRIu64, byte_store_name(bytes),
                            offset);
        if (offset < window->start || offset - window->start > window->length ||
            length > window->length - (offset - window->start)) {
                size_t there = (size_t) min_u64(WINDOW_SIZE, byte_store_size(bytes) - offset);
                int rc;

                window->length = 0;
                rc = byte_store_read(bytes, window->bytes, there, offset, reterr);
                if (rc < 0)
                        return rc;
                window->start = offset;
                window->length = there;
        }
        *ret = window->bytes + (offset - window->start);
        return 0;
}
