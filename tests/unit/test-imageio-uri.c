#include "sources/imageio-uri.h"

#include <errno.h>

#include "unit.h"
#include "util/cleanup.h"

static void parts_are_told_apart(void) {
        CLEANUP(imageio_uri_clear) ImageioUri uri = { 0 };

        CHECK_INT(imageio_uri_parse("https://host.example:54322/images/0b3c-1?cafile=/a%20b&bitmap=F&checkpoint=T"
                                    "&image=I&timeout=7", &uri, NULL), 0);
        CHECK_TEXT(uri.url, "https://host.example:54322/images/0b3c-1");
        CHECK_TEXT(uri.ticket, "0b3c-1");
        CHECK_TEXT(uri.shown, "https://host.example:54322/images/***");
        CHECK_TEXT(uri.cafile, "/a b");
        CHECK_TEXT(uri.common.bitmap, "F");
        CHECK_TEXT(uri.common.checkpoint, "T");
        CHECK_TEXT(uri.common.image, "I");
        CHECK_INT(uri.common.timeout_s, 7);
        CHECK(uri.tls);
}

static void query_is_optional(void) {
        CLEANUP(imageio_uri_clear) ImageioUri uri = { 0 };

        CHECK_INT(imageio_uri_parse("http://[::1]:80/images/t", &uri, NULL), 0);
        CHECK_TEXT(uri.url, "http://[::1]:80/images/t");
        CHECK(!uri.tls && !uri.cafile && !uri.common.bitmap && !uri.common.checkpoint && !uri.common.image &&
              uri.common.timeout_s == 0);
}

static void relative_path_becomes_absolute_and_stays_so(void) {
        CLEANUP(imageio_uri_clear) ImageioUri uri = { 0 }, again = { 0 };
        CLEANUP(freep) char *text = NULL;

        CHECK_INT(chdir("/usr"), 0);
        CHECK_INT(imageio_uri_parse("https://h/images/t?timeout=9&cafile=a%26b&checkpoint=x%20y", &uri, NULL), 0);
        CHECK_TEXT(uri.cafile, "/usr/a&b");
        CHECK_INT(imageio_uri_format(&uri, &text), 0);
        CHECK_TEXT(text, "https://h/images/t?cafile=/usr/a%26b&checkpoint=x%20y&timeout=9");
        CHECK_INT(chdir("/"), 0);
        CHECK_INT(imageio_uri_parse(text, &again, NULL), 0);
        CHECK_TEXT(again.cafile, "/usr/a&b");
        CHECK_TEXT(again.common.checkpoint, "x y");
}

static void what_cannot_be_is_refused_without_telling_the_ticket(void) {
        static const struct {
                const char *text, *words;
        } uris[] = {
                { "https://", "no host" },
                { "https:///images/SECRET", "no host" },
                { "https://u:p@h/images/SECRET", "no host" },
                { "https://h\n/images/SECRET", "no host" },
                { "https://h", "is written" },
                { "https://h/SECRET", "is written" },
                { "https://h/images", "is written" },
                { "https://h/images/", "no ticket" },
                { "https://h/images/SECRET/extents", "no ticket" },
                { "https://h/images/../SECRET", "no ticket" },
                { "https://h/images/*", "no ticket" },
                { "https://h/images/SECRET%41", "no ticket" },
                { "https://h/images/SECRET#x", "no ticket" },
                { "https://h/images/SECRET?ca=x", "\"ca\" is no parameter" },
                { "https://h/images/SECRET?cafile=", "cafile is there twice or says nothing" },
                { "https://h/images/SECRET?bitmap=a&bitmap=b", "bitmap is there twice" },
                { "https://h/images/SECRET?bitmap=%zz", "no escape" },
                { "https://h/images/SECRET?timeout=0", "from 1 to 3600" },
                { "https://h/images/SECRET?timeout=-1", "from 1 to 3600" },
                { "https://h/images/SECRET?timeout=99999999999999999999", "from 1 to 3600" },
        };

        for (size_t i = 0; i < sizeof uris / sizeof *uris; i++) {
                ImageioUri uri;
                Reason reason = REASON_INIT;

                CHECK_INT(imageio_uri_parse(uris[i].text, &uri, &reason), -EINVAL);
                CHECK_SAYS(reason, uris[i].words);
                CHECK(!strstr(reason.text, "SECRET"));
        }
}

static void only_http_is_claimed(void) {
        CHECK(imageio_uri_claims("https://h/images/t"));
        CHECK(imageio_uri_claims("http://h/images/t"));
        CHECK(!imageio_uri_claims("httpx://h/images/t"));
        CHECK(!imageio_uri_claims("nbd://h"));
}

int main(void) {
        RUN(parts_are_told_apart);
        RUN(query_is_optional);
        RUN(relative_path_becomes_absolute_and_stays_so);
        RUN(what_cannot_be_is_refused_without_telling_the_ticket);
        RUN(only_http_is_claimed);
        return unit_result();
}
