#include "sources/imageio-offer.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/text.h"

#define LOCAL_MAX 107 /* bytes of a Unix socket's address, with the NUL at the beginning or at the end */

void imageio_offer_clear(ImageioOffer *offer) {
        free(offer->local);
        *offer = (ImageioOffer) { 0 };
}

static int take_local(const json_t *address, ImageioOffer *offer) {
        const char *name = json_string_value(address);
        size_t length = json_string_length(address);

        /* An abstract one begins with a NUL; another NUL would be a name that cannot be told to libcurl. */
        if (length < 2 || length > LOCAL_MAX || strlen(name + 1) != length - 1 || (*name && *name != '/'))
                return 0;
        if (text_format(&offer->local, "%s%s", *name ? "" : "@", *name ? name : name + 1) < 0)
                return -ENOMEM;
        return 0;
}

static bool has_feature(const json_t *features, const char *name) {
        const json_t *feature;
        size_t i;

        json_array_foreach(features, i, feature)
                if (json_is_string(feature) && strcmp(json_string_value(feature), name) == 0)
                        return true;
        return false;
}

static size_t take_limit(const json_t *limit) {
        return json_is_integer(limit) && json_integer_value(limit) > 0 ? (size_t) json_integer_value(limit) : 1;
}

int imageio_offer_parse(const char *text, size_t length, ImageioOffer *ret, Reason *reterr) {
        json_t *options = json_loadb(text, length, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
        const json_t *features = json_object_get(options, "features");
        ImageioOffer offer = {
                .extents = has_feature(features, "extents"),
                .zero = has_feature(features, "zero"),
                .flush = has_feature(features, "flush"),
                .max_readers = take_limit(json_object_get(options, "max_readers")),
                .max_writers = take_limit(json_object_get(options, "max_writers")),
        };
        int rc = 0;

        if (!json_is_object(options))
                rc = fail(reterr, -EPROTO, "the server's options are no JSON object");
        else if (take_local(json_object_get(options, "unix_socket"), &offer) < 0)
                rc = fail_oom(reterr);
        json_decref(options);
        if (rc == 0)
                *ret = offer;
        return rc;
}
