/* core/formats/virtnbdbackup/window.h - a few bytes of a file, read together because small things lie near each other.
 *
 * Threads: a window belongs to one. */
#pragma once

#include "formats/byte-store.h"

#define WINDOW_SIZE 4096u

typedef struct Window { /* zeroed: empty */
        uint64_t start;
        size_t length;
        unsigned char bytes[WINDOW_SIZE];
} Window;

/* length <= WINDOW_SIZE bytes at offset, which are valid until the next call. -EIO; -EBADMSG where they pass limit, the end
 * of what may be looked at. */
int window_get(Window *window, ByteStore *bytes, uint64_t offset, size_t length, uint64_t limit, const unsigned char **ret,
               Reason *reterr);
