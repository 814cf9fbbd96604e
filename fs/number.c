#include "number.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int parse(const char *text, int base, uint64_t max, uint64_t *ret, const char **ret_rest) {
        char *end;

        if (*text < '0' || *text > '9')
                return -EINVAL;
        errno = 0;
        *ret = strtoull(text, &end, base);
        if (errno || *ret > max)
                return -EINVAL;
        *ret_rest = end;
        return 0;
}

int number_parse(const char *text, int base, uint64_t max, uint64_t *ret) {
        const char *rest;

        return parse(text, base, max, ret, &rest) < 0 || *rest ? -EINVAL : 0;
}

int size_parse(const char *text, uint64_t max, uint64_t *ret) {
        const char *units = "KMGT", *unit, *rest;
        int shift = 0;

        if (parse(text, 10, max, ret, &rest) < 0)
                return -EINVAL;
        if (*rest) {
                unit = strchr(units, *rest & ~0x20);
                if (!unit || rest[1])
                        return -EINVAL;
                shift = 10 * (int) (unit - units + 1);
        }
        if (*ret > max >> shift)
                return -EINVAL;
        *ret <<= shift;
        return 0;
}
