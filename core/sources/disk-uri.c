#include "sources/disk-uri.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/text.h"
#include "util/uri.h"

#define TIMEOUT_MAX 3600 /* seconds */

static int fail_unknown(const char *name, const DiskUriParameter *parameters, size_t count, Reason *reterr) {
        char known[256] = "";
        size_t length = 0;

        for (size_t i = 0; i < count && length < sizeof known; i++)
                length += (size_t) snprintf(known + length, sizeof known - length, "%s%s",
                                            i == 0 ? "" : i + 1 < count ? ", " : " and ", parameters[i].name);
        return fail(reterr, -EINVAL, "\"%s\" is no parameter of such a URI: %s are", name, known);
}

static int take_one(const char *name, char **value, const DiskUriParameter *parameters, size_t count, Reason *reterr) {
        for (size_t i = 0; i < count; i++) {
                if (strcmp(name, parameters[i].name) != 0)
                        continue;
                if (!**value || *parameters[i].value)
                        return fail(reterr, -EINVAL, "%s is there twice or says nothing", name);
                *parameters[i].value = STEAL_PTR(*value);
                return parameters[i].is_path ? disk_uri_make_absolute(parameters[i].value, reterr) : 0;
        }
        return fail_unknown(name, parameters, count, reterr);
}

static int take_all(const char *query, const DiskUriParameter *parameters, size_t count, Reason *reterr) {
        for (;;) {
                CLEANUP(freep) char *name = NULL, *value = NULL;
                int rc = query ? uri_next_parameter(&query, &name, &value) : 0;

                if (rc == -ENOMEM)
                        return fail_oom(reterr);
                if (rc < 0)
                        return fail(reterr, rc, "what is behind the \"?\" has a \"%%\" that is no escape");
                if (rc == 0)
                        return 0;
                rc = take_one(name, &value, parameters, count, reterr);
                if (rc < 0)
                        return rc;
        }
}

static int take_timeout(const char *text, unsigned *ret, Reason *reterr) {
        unsigned long seconds;
        char *end;

        if (!text) {
                *ret = 0;
                return 0;
        }
        seconds = strtoul(text, &end, 10);
        if (*text < '0' || *text > '9' || *end || seconds == 0 || seconds > TIMEOUT_MAX)
                return fail(reterr, -EINVAL, "a timeout is from 1 to %u seconds, not \"%s\"", TIMEOUT_MAX, text);
        *ret = (unsigned) seconds;
        return 0;
}

int disk_uri_take(const char *query, const DiskUriParameter *parameters, size_t count, DiskUriCommon *common,
                  Reason *reterr) {
        int rc = take_all(query, parameters, count, reterr);

        return rc == 0 ? take_timeout(common->timeout, &common->timeout_s, reterr) : rc;
}

void disk_uri_common_clear(DiskUriCommon *common) {
        free(common->bitmap);
        free(common->checkpoint);
        free(common->image);
        free(common->timeout);
        *common = (DiskUriCommon) { 0 };
}

int disk_uri_load(const char *text, int (*load)(const char *text, void *uri, Reason *reterr), void *uri, Reason *reterr) {
        CLEANUP(freep) char *shown = NULL;
        int rc;

        if (uri_hide_passwords(text, &shown) < 0)
                return fail_oom(reterr);
        rc = load(text, uri, reterr);
        return rc < 0 && rc != -ENOMEM ? fail_within(reterr, rc, "%s", shown) : rc;
}

int disk_uri_refuse_captured(const DiskUriCommon *common, const char *shown, Reason *reterr) {
        if (!common->bitmap && !common->checkpoint && !common->image)
                return 0;
        return fail(reterr, -EINVAL, "%s: bitmap, checkpoint and image are parameters of what is captured", shown);
}

int disk_uri_format(const char *base, const DiskUriParameter *parameters, size_t count, char **ret) {
        CLEANUP(freep) char *text = strdup(base);
        char separator = '?';

        for (size_t i = 0; text && i < count; i++) {
                CLEANUP(freep) char *escaped = NULL;
                char *longer;

                if (!*parameters[i].value)
                        continue;
                if (uri_escape(*parameters[i].value, &escaped) < 0 ||
                    text_format(&longer, "%s%c%s=%s", text, separator, parameters[i].name, escaped) < 0)
                        return -ENOMEM;
                free(text);
                text = longer;
                separator = '&';
        }
        *ret = STEAL_PTR(text);
        return *ret ? 0 : -ENOMEM;
}

int disk_uri_make_absolute(char **path, Reason *reterr) {
        CLEANUP(freep) char *here = NULL;
        char *whole;

        if (**path == '/')
                return 0;
        here = getcwd(NULL, 0);
        if (!here)
                return fail_errno(reterr, -errno, "cannot tell what %s is relative to", *path);
        if (text_format(&whole, "%s/%s", strcmp(here, "/") == 0 ? "" : here, *path) < 0)
                return fail_oom(reterr);
        free(*path);
        *path = whole;
        return 0;
}
