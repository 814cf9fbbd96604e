#include "sources/imageio-uri.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/uri.h"

#define TLS "https://"
#define PLAIN "http://"
#define TICKETS "/images/"
#define TICKET_MAX 255   /* bytes; oVirt's have 36 */
#define TIMEOUT_MAX 3600 /* seconds */

void imageio_uri_clear(ImageioUri *uri) {
        free(uri->url);
        free(uri->shown);
        free(uri->cafile);
        free(uri->bitmap);
        free(uri->checkpoint);
        free(uri->image);
        *uri = (ImageioUri) { 0 };
}

bool imageio_uri_claims(const char *text) {
        return strncmp(text, TLS, strlen(TLS)) == 0 || strncmp(text, PLAIN, strlen(PLAIN)) == 0;
}

static int take_timeout(ImageioUri *uri, const char *value, Reason *reterr) {
        char *end;
        unsigned long seconds = strtoul(value, &end, 10);

        if (*value < '0' || *value > '9' || *end || seconds == 0 || seconds > TIMEOUT_MAX)
                return fail(reterr, -EINVAL, "a timeout is from 1 to %u seconds, not \"%s\"", TIMEOUT_MAX, value);
        uri->timeout = (unsigned) seconds;
        return 0;
}

static int take_parameter(ImageioUri *uri, const char *name, char **value, Reason *reterr) {
        char **place = strcmp(name, "cafile") == 0     ? &uri->cafile
                       : strcmp(name, "bitmap") == 0     ? &uri->bitmap
                       : strcmp(name, "checkpoint") == 0 ? &uri->checkpoint
                       : strcmp(name, "image") == 0      ? &uri->image
                                                         : NULL;

        if (strcmp(name, "timeout") == 0)
                return take_timeout(uri, *value, reterr);
        if (!place)
                return fail(reterr, -EINVAL, "\"%s\" is no parameter of an image transfer: cafile, bitmap, checkpoint, "
                            "image and timeout are", name);
        if (!**value || *place)
                return fail(reterr, -EINVAL, "%s is there twice or says nothing", name);
        *place = STEAL_PTR(*value);
        return 0;
}

static int take_query(ImageioUri *uri, const char *query, Reason *reterr) {
        int rc;

        do {
                CLEANUP(freep) char *name = NULL, *value = NULL;

                rc = uri_next_parameter(&query, &name, &value);
                if (rc == -ENOMEM)
                        return fail_oom(reterr);
                if (rc < 0)
                        return fail(reterr, rc, "what is behind the \"?\" has a \"%%\" that is no escape");
                if (rc > 0) {
                        int taken = take_parameter(uri, name, &value, reterr);

                        if (taken < 0)
                                return taken;
                }
        } while (rc > 0);
        return 0;
}

static int make_absolute(char **path, Reason *reterr) {
        CLEANUP(freep) char *here = NULL;
        char *whole;

        if (!*path || **path == '/')
                return 0;
        here = getcwd(NULL, 0);
        if (!here)
                return fail_errno(reterr, -errno, "cannot tell what %s is relative to", *path);
        if (asprintf(&whole, "%s/%s", here, *path) < 0)
                return fail_oom(reterr);
        free(*path);
        *path = whole;
        return 0;
}

/* Nothing in it needs an escape: so no two spellings are the same ticket, and none ends the header that it goes into. */
static bool is_plain(const char *text, size_t length, const char *besides) {
        for (size_t i = 0; i < length; i++) {
                char c = text[i];
                bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

                if (!letter && !(c >= '0' && c <= '9') && !strchr(besides, c))
                        return false;
        }
        return length > 0;
}

static int load(const char *text, ImageioUri *uri, Reason *reterr) {
        const char *host = strstr(text, "://") + strlen("://"), *path = host + strcspn(host, "/?#"), *ticket, *end;
        int rc;

        uri->tls = strncmp(text, TLS, strlen(TLS)) == 0;
        if (!is_plain(host, (size_t) (path - host), "-._:[]%"))
                return fail(reterr, -EINVAL, "it names no host");
        if (strncmp(path, TICKETS, strlen(TICKETS)) != 0)
                return fail(reterr, -EINVAL, "an image transfer is written https://HOST:54322/images/TICKET");
        ticket = path + strlen(TICKETS);
        end = ticket + strcspn(ticket, "?");
        if (!is_plain(ticket, (size_t) (end - ticket), "-._~") || end - ticket > TICKET_MAX || *ticket == '.')
                return fail(reterr, -EINVAL, "it names no ticket that could be");
        rc = *end ? take_query(uri, end + 1, reterr) : 0;
        if (rc == 0)
                rc = make_absolute(&uri->cafile, reterr);
        if (rc < 0)
                return rc;
        uri->url = strndup(text, (size_t) (end - text));
        if (!uri->url || uri_hide_passwords(uri->url, &uri->shown) < 0)
                return fail_oom(reterr);
        uri->ticket = uri->url + (ticket - text);
        return 0;
}

int imageio_uri_parse(const char *text, ImageioUri *ret, Reason *reterr) {
        CLEANUP(imageio_uri_clear) ImageioUri uri = { 0 };
        CLEANUP(freep) char *shown = NULL;
        int rc;

        if (uri_hide_passwords(text, &shown) < 0)
                return fail_oom(reterr);
        rc = load(text, &uri, reterr);
        if (rc < 0)
                return rc == -ENOMEM ? rc : fail_within(reterr, rc, "%s", shown);
        *ret = uri;
        uri = (ImageioUri) { 0 };
        return 0;
}

static int append(char **text, char separator, const char *name, const char *value) {
        CLEANUP(freep) char *escaped = NULL;
        char *longer;

        if (uri_escape(value, &escaped) < 0 || asprintf(&longer, "%s%c%s=%s", *text, separator, name, escaped) < 0)
                return -ENOMEM;
        free(*text);
        *text = longer;
        return 0;
}

int imageio_uri_format(const ImageioUri *uri, char **ret) {
        char timeout[16];
        const struct {
                const char *name, *value;
        } parameters[] = {
                { "cafile", uri->cafile }, { "bitmap", uri->bitmap },   { "checkpoint", uri->checkpoint },
                { "image", uri->image },   { "timeout", uri->timeout > 0 ? timeout : NULL },
        };
        CLEANUP(freep) char *text = strdup(uri->url);
        char separator = '?';

        if (!text)
                return -ENOMEM;
        snprintf(timeout, sizeof timeout, "%u", uri->timeout);
        for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++) {
                if (!parameters[i].value)
                        continue;
                if (append(&text, separator, parameters[i].name, parameters[i].value) < 0)
                        return -ENOMEM;
                separator = '&';
        }
        *ret = STEAL_PTR(text);
        return 0;
}
