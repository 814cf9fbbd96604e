#include "util/bytes.h"

bool bytes_are_zero(const void *bytes, size_t length) {
        const unsigned char *b = bytes;
        size_t head = length < 16 ? length : 16;

        for (size_t i = 0; i < head; i++)
                if (b[i])
                        return false;
        /* The first 16 bytes are zero: so are all, if each equals the one 16 before it. */
        return length <= 16 || memcmp(b, b + 16, length - 16) == 0;
}
