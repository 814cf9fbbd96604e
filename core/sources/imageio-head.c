#include "sources/imageio-head.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define HEAD_MAX (64u << 10) /* bytes */
#define LINE_KEPT 256        /* bytes of a line; what we look for is shorter */

static int read_number(const char **text, uint64_t *ret) {
        char *end;

        if (**text < '0' || **text > '9')
                return -EPROTO;
        errno = 0;
        *ret = strtoull(*text, &end, 10);
        *text = end;
        return errno || *ret > INT64_MAX ? -EPROTO : 0;
}

/* "bytes 0-65535/1073741824" or "…/" "*" */
static int read_range(const char *text, ImageioHead *head) {
        text += strspn(text, " \t");
        if (strncasecmp(text, "bytes ", 6) != 0)
                return -EPROTO;
        text += 6;
        if (read_number(&text, &head->first) < 0 || *text++ != '-' || read_number(&text, &head->last) < 0 ||
            *text++ != '/')
                return -EPROTO;
        head->total = UINT64_MAX;
        if (*text == '*')
                text++;
        else if (read_number(&text, &head->total) < 0)
                return -EPROTO;
        return text[strspn(text, " \t\r\n")] ? -EPROTO : 0;
}

static bool is_header(const char *line, const char *name, const char **ret_value) {
        size_t length = strlen(name);

        if (strncasecmp(line, name, length) != 0 || line[length] != ':')
                return false;
        *ret_value = line + length + 1;
        return true;
}

int imageio_head_take(ImageioHead *head, const char *bytes, size_t length, Reason *reterr) {
        char line[LINE_KEPT];
        const char *value;

        head->length += length;
        if (head->length > HEAD_MAX)
                return fail(reterr, -EPROTO, "the server's answer has headers without end");
        snprintf(line, sizeof line, "%.*s", (int) (length < sizeof line ? length : sizeof line - 1), bytes);
        if (strncmp(line, "HTTP/", 5) == 0) /* there may have been another answer before */
                *head = (ImageioHead) { .length = head->length, .total = UINT64_MAX };
        else if (line[strspn(line, "\r\n")] == 0)
                head->whole = true;
        else if (is_header(line, "Content-Range", &value)) {
                head->wrong_range |= head->has_range || read_range(value, head) < 0;
                head->has_range = true;
        } else if (is_header(line, "Content-Encoding", &value))
                head->encoded |= strncasecmp(value + strspn(value, " \t"), "identity", 8) != 0;
        return 0;
}

int imageio_head_check(const ImageioHead *head, uint64_t start, uint64_t length, Reason *reterr) {
        if (head->encoded)
                return fail(reterr, -EPROTO, "the server's answer is encoded, which it was not asked to be");
        if (length == 0)
                return 0;
        if (!head->has_range || head->wrong_range)
                return fail(reterr, -EPROTO, "the server does not say which range its answer has");
        if (head->first != start || head->last != start + length - 1 || head->last >= head->total)
                return fail(reterr, -EPROTO, "the server answers with another range than asked for");
        return 0;
}
