#include "command-line/source-words.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/text.h"
#include "util/uri.h"

#define INPUT_MAX (32u << 10) /* bytes */

static void hide(char *word) {
        CLEANUP(freep) char *shown = NULL;
        size_t length = strlen(word), shown_length;

        (void) uri_hide_passwords(word, &shown);
        memset(word, 0, length);
        shown_length = shown ? strlen(shown) : 0;
        memcpy(word, shown ?: "", shown_length < length ? shown_length : length);
}

/* Spaces stand between words: within one they are written as URIs have them. */
static char *escape_spaces(const char *word) {
        char *escaped = malloc(3 * strlen(word) + 1), *to = escaped;

        if (!escaped)
                return NULL;
        for (; *word; word++)
                if (strchr(" \t\r\n", *word))
                        to += sprintf(to, "%%%02X", (unsigned char) *word);
                else
                        *to++ = *word;
        *to = 0;
        return escaped;
}

static int append(const char *given, char **source, Reason *reterr) {
        CLEANUP(freep) char *word = escape_spaces(given);
        char *longer;

        if (!word || text_format(&longer, "%s%s%s", *source ?: "", *source ? " " : "", word) < 0)
                return fail_oom(reterr);
        free(*source);
        *source = longer;
        return 0;
}

static int take_input(char **source, Reason *reterr) {
        char text[INPUT_MAX], *rest = text, *word;
        size_t length = fread(text, 1, sizeof text - 1, stdin);
        int rc = 0;

        if (ferror(stdin))
                return fail(reterr, -EIO, "cannot read the source from standard input");
        if (length == sizeof text - 1)
                return fail(reterr, -EFBIG, "standard input is longer than a source can be");
        text[length] = 0;
        while (rc == 0 && (word = strsep(&rest, " \t\r\n")))
                if (*word)
                        rc = append(word, source, reterr);
        return rc;
}

int source_words_take(char *word, char **source, Reason *reterr) {
        bool input = strcmp(word, "-") == 0;
        int rc = input ? take_input(source, reterr) : *word ? append(word, source, reterr) : 0;

        hide(word);
        if (rc == 0 && !*source)
                return fail(reterr, -EINVAL, input ? "standard input is empty: it has to tell a URI" : "the URI is empty");
        return rc;
}
