#include "formats/virtnbdbackup/frame.h"

#include <stddef.h>
#include <string.h>

#define KIND_LENGTH 4u
#define DIGITS 16u

static const char kinds[][KIND_LENGTH + 1] = {
        [FRAME_META] = "meta", [FRAME_DATA] = "data", [FRAME_ZERO] = "zero", [FRAME_STOP] = "stop", [FRAME_COMP] = "comp",
};

static bool parse_number(const unsigned char *digits, uint64_t *ret) {
        uint64_t number = 0;

        for (size_t i = 0; i < DIGITS; i++) {
                unsigned char c = digits[i];

                if (c >= '0' && c <= '9')
                        number = number << 4 | (uint64_t) (c - '0');
                else if (c >= 'a' && c <= 'f')
                        number = number << 4 | (uint64_t) (c - 'a' + 10);
                else
                        return false;
        }
        *ret = number;
        return true;
}

bool frame_parse(const unsigned char *bytes, Frame *ret) {
        const unsigned char *start = bytes + KIND_LENGTH + 1, *length = start + DIGITS + 1;

        if (bytes[KIND_LENGTH] != ' ' || start[DIGITS] != ' ' || memcmp(length + DIGITS, FRAME_END, FRAME_END_LENGTH) != 0)
                return false;
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
                if (memcmp(bytes, kinds[i], KIND_LENGTH) == 0) {
                        ret->kind = (FrameKind) i;
                        return parse_number(start, &ret->start) && parse_number(length, &ret->length);
                }
        return false;
}
