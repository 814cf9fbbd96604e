#include "util/reason.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What is quoted may come from outside (a file name, a server's message): keep it on one line. */
static void keep_to_one_line(char *text) {
        for (unsigned char *c = (unsigned char *) text; *c; c++)
                if (*c < ' ' || *c == 0x7f)
                        *c = '?';
}

int fail(Reason *reterr, int rc, const char *format, ...) {
        va_list args;

        if (!reterr)
                return rc;
        va_start(args, format);
        vsnprintf(reterr->text, sizeof reterr->text, format, args);
        va_end(args);
        keep_to_one_line(reterr->text);
        return rc;
}

int fail_errno(Reason *reterr, int rc, const char *format, ...) {
        char what[REASON_MAX - 80];
        va_list args;

        if (!reterr)
                return rc;
        va_start(args, format);
        vsnprintf(what, sizeof what, format, args);
        va_end(args);
        return fail(reterr, rc, "%s: %s", what, strerrordesc_np(-rc) ?: "unknown error");
}

int fail_within(Reason *reterr, int rc, const char *format, ...) {
        char subject[REASON_MAX / 2];
        char words[REASON_MAX];
        size_t room;
        va_list args;

        if (!reterr)
                return rc;
        va_start(args, format);
        vsnprintf(subject, sizeof subject, format, args);
        va_end(args);
        memcpy(words, reterr->text, sizeof words);
        words[sizeof words - 1] = 0;
        room = sizeof reterr->text - strlen(subject) - sizeof ": ";
        snprintf(reterr->text, sizeof reterr->text, "%s: %.*s", subject, (int) room, words);
        keep_to_one_line(reterr->text);
        return rc;
}

int fail_oom(Reason *reterr) {
        return fail(reterr, -ENOMEM, "out of memory");
}
