#include "util/uri.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

#define HIDDEN "***"
#define TICKETS "/images/"

typedef struct Shown {
        char *text;
        size_t length;
} Shown;

static void show(Shown *shown, const char *text, size_t length) {
        memcpy(shown->text + shown->length, text, length);
        shown->length += length;
}

/* "user:password@host"; the text that is behind it. */
static const char *show_authority(Shown *shown, const char *text) {
        size_t end = strcspn(text, "/?# ");
        const char *colon, *at = NULL;

        for (const char *c = text; c < text + end; c++)
                if (*c == '@')
                        at = c;
        colon = at ? memchr(text, ':', (size_t) (at - text)) : NULL;
        if (!colon) {
                show(shown, text, end);
                return text + end;
        }
        show(shown, text, (size_t) (colon + 1 - text));
        show(shown, HIDDEN, strlen(HIDDEN));
        show(shown, at, (size_t) (text + end - at));
        return text + end;
}

/* What the path of an http URI leads to may be known to who knows the path. */
static const char *show_http_path(Shown *shown, const char *text) {
        size_t end = strcspn(text, "?# ");
        size_t known = strncmp(text, TICKETS, strlen(TICKETS)) == 0 ? strlen(TICKETS) : 1;

        if (end <= known)
                known = end;
        show(shown, text, known);
        if (end > known)
                show(shown, HIDDEN, strlen(HIDDEN));
        return text + end;
}

static bool is_http(const char *text, const char *colon) {
        size_t length = (size_t) (colon - text);

        return (length >= 4 && memcmp(colon - 4, "http", 4) == 0) || (length >= 5 && memcmp(colon - 5, "https", 5) == 0);
}

int uri_hide_passwords(const char *text, char **ret) {
        CLEANUP(freep) char *room = malloc(strlen(text) * 2 + 4); /* each "***" stands for a character at least, of six */
        Shown shown = { room, 0 };
        const char *colon;

        if (!room)
                return -ENOMEM;
        while ((colon = strstr(text, "://"))) {
                bool http = is_http(text, colon);

                show(&shown, text, (size_t) (colon + 3 - text));
                text = show_authority(&shown, colon + 3);
                if (http)
                        text = show_http_path(&shown, text);
        }
        show(&shown, text, strlen(text) + 1);
        *ret = STEAL_PTR(room);
        return 0;
}

static int digit(char c) {
        if (c >= '0' && c <= '9')
                return c - '0';
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

int uri_unescape(const char *text, size_t length, char **ret) {
        CLEANUP(freep) char *plain = malloc(length + 1);
        size_t plain_length = 0;

        if (!plain)
                return -ENOMEM;
        for (size_t i = 0; i < length; i++) {
                char c = text[i];

                if (c == '%') {
                        int high = length - i > 2 ? digit(text[i + 1]) : -1, low = high < 0 ? -1 : digit(text[i + 2]);

                        if (low < 0 || high + low == 0)
                                return -EINVAL;
                        c = (char) (high << 4 | low);
                        i += 2;
                }
                plain[plain_length++] = c;
        }
        plain[plain_length] = 0;
        *ret = STEAL_PTR(plain);
        return 0;
}

int uri_escape(const char *text, char **ret) {
        static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/:";
        char *escaped = malloc(strlen(text) * 3 + 1), *to = escaped;

        if (!escaped)
                return -ENOMEM;
        for (; *text; text++)
                if (strchr(plain, *text))
                        *to++ = *text;
                else
                        to += sprintf(to, "%%%02X", (unsigned char) *text);
        *to = 0;
        *ret = escaped;
        return 0;
}

int uri_next_parameter(const char **query, char **ret_name, char **ret_value) {
        CLEANUP(freep) char *name = NULL, *value = NULL;
        const char *text = *query + strspn(*query, "&");
        size_t length = strcspn(text, "&"), name_length = strcspn(text, "=&");
        int rc;

        if (length == 0)
                return 0;
        rc = uri_unescape(text, name_length, &name);
        if (rc == 0 && name_length < length)
                rc = uri_unescape(text + name_length + 1, length - name_length - 1, &value);
        else if (rc == 0)
                rc = uri_unescape("", 0, &value);
        if (rc < 0)
                return rc;
        *query = text + length;
        *ret_name = STEAL_PTR(name);
        *ret_value = STEAL_PTR(value);
        return 1;
}

int uri_split_address(const char *text, size_t length, char **ret_host, unsigned *ret_port, Reason *reterr) {
        const char *end = text + length, *host = text, *host_end = end, *colon = memchr(text, ':', length);
        unsigned long port = 0;

        if (length > 0 && *text == '[') {
                host = text + 1;
                host_end = memchr(text, ']', length);
                if (!host_end || (host_end + 1 < end && host_end[1] != ':'))
                        return fail(reterr, -EINVAL, "\"%.*s\" is no address", (int) length, text);
                colon = host_end + 1 < end ? host_end + 1 : NULL;
        } else if (colon && memchr(colon + 1, ':', (size_t) (end - colon - 1))) {
                colon = NULL;
        } else if (colon) {
                host_end = colon;
        }
        if (colon) {
                char *stop;

                port = strtoul(colon + 1, &stop, 10);
                if (stop != end || colon[1] < '0' || colon[1] > '9' || port == 0 || port > 65535)
                        return fail(reterr, -EINVAL, "\"%.*s\" has no port that could be", (int) length, text);
        }
        if (host == host_end)
                return fail(reterr, -EINVAL, "\"%.*s\" names no host", (int) length, text);
        *ret_host = strndup(host, (size_t) (host_end - host));
        *ret_port = (unsigned) port;
        return *ret_host ? 0 : fail_oom(reterr);
}
