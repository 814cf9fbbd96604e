#include "util/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int text_format(char **ret, const char *format, ...) {
        char *text;
        va_list args;
        int length;

        va_start(args, format);
        length = vasprintf(&text, format, args);
        va_end(args);
        *ret = length < 0 ? NULL : text;
        return length < 0 ? -ENOMEM : 0;
}
