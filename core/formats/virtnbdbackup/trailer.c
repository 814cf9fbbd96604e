#include "formats/virtnbdbackup/trailer.h"

#include <errno.h>
#include <string.h>

#include "util/bytes.h"

#define NUMBER_MAX 20 /* digits, and a character behind them */
#define SPACES_MAX 64 /* one after another: json.dumps() writes one */
#define LOOK_LENGTH (SPACES_MAX + NUMBER_MAX)

/* What is left of the JSON, as far as a look needs it. */
typedef struct Look {
        const unsigned char *bytes;
        size_t length, used;
} Look;

static int damaged(const Shape *shape, Reason *reterr) {
        return fail(reterr, -EBADMSG, "%s is damaged: its list of sizes is not what it should be",
                    byte_store_name(shape->bytes));
}

static int look(const Shape *shape, Window *window, uint64_t at, Look *ret, Reason *reterr) {
        *ret = (Look) { .length = (size_t) min_u64(LOOK_LENGTH, shape->trailer_end - at) };
        return window_get(window, shape->bytes, at, ret->length, shape->trailer_end, &ret->bytes, reterr);
}

/* The next character that is neither white space nor a comma; 0 where there is none. */
static unsigned char peek(Look *look) {
        while (look->used < look->length && strchr(" \t\r\n,", look->bytes[look->used]))
                look->used++;
        return look->used < look->length ? look->bytes[look->used] : 0;
}

static bool take(Look *look, unsigned char c) {
        if (peek(look) != c)
                return false;
        look->used++;
        return true;
}

static bool take_number(Look *look, uint64_t *ret) {
        uint64_t number = 0;
        size_t digits = 0;

        for (peek(look); look->used < look->length; look->used++, digits++) {
                unsigned char c = look->bytes[look->used];

                if (c < '0' || c > '9')
                        break;
                if (__builtin_mul_overflow(number, 10, &number) ||
                    __builtin_add_overflow(number, (uint64_t) (c - '0'), &number))
                        return false;
        }
        *ret = number;
        return digits > 0 && look->used < look->length; /* something is always behind a number */
}

int trailer_next(const Shape *shape, Window *window, uint64_t *at, TrailerEntry *ret, Reason *reterr) {
        TrailerEntry entry = { 0 };
        Look here;
        int rc = look(shape, window, *at, &here, reterr);

        if (rc < 0)
                return rc;
        if (*at == shape->trailer && !take(&here, '['))
                return damaged(shape, reterr);
        if (peek(&here) == ']')
                return 0;
        entry.is_list = take(&here, '{');
        if (entry.is_list && !take(&here, '"'))
                return damaged(shape, reterr);
        if (!take_number(&here, &entry.size))
                return damaged(shape, reterr);
        if (entry.is_list && (!take(&here, '"') || !take(&here, ':') || !take(&here, '[')))
                return damaged(shape, reterr);
        *at += here.used;
        *ret = entry;
        return 1;
}

int trailer_next_part(const Shape *shape, Window *window, uint64_t *at, uint64_t *ret_size, Reason *reterr) {
        Look here;
        int rc = look(shape, window, *at, &here, reterr);

        if (rc < 0)
                return rc;
        if (take(&here, ']')) {
                if (!take(&here, '}'))
                        return damaged(shape, reterr);
                *at += here.used;
                return 0;
        }
        if (!take_number(&here, ret_size))
                return damaged(shape, reterr);
        *at += here.used;
        return 1;
}
