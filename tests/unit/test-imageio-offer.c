#include "sources/imageio-offer.h"

#include <errno.h>

#include "unit.h"
#include "util/cleanup.h"

static void check(const char *text, bool extents, size_t max_readers, const char *local) {
        CLEANUP(imageio_offer_clear) ImageioOffer offer = { 0 };

        CHECK_INT(imageio_offer_parse(text, strlen(text), &offer, NULL), 0);
        CHECK_INT(offer.extents, extents);
        CHECK_INT(offer.max_readers, max_readers);
        if (local)
                CHECK_TEXT(offer.local, local);
        else
                CHECK(!offer.local);
}

static void offer_of_imageio_is_understood(void) {
        check("{\"unix_socket\": \"\\u0000/org/ovirt/imageio\", \"features\": [\"checksum\", \"extents\"],"
              " \"max_readers\": 8, \"max_writers\": 1}", true, 8, "@/org/ovirt/imageio");
        check("{\"unix_socket\": \"/run/imageio\", \"features\": []}", false, 1, "/run/imageio");
        check("{}", false, 1, NULL);
}

static void what_it_takes_for_writes_is_understood(void) {
        static const char text[] = "{\"features\": [\"zero\", \"flush\"], \"max_writers\": 4}";
        ImageioOffer offer;
        Reason reason = REASON_INIT;

        CHECK_INT(imageio_offer_parse(text, strlen(text), &offer, &reason), 0);
        CHECK(offer.zero && offer.flush);
        CHECK_INT(offer.max_writers, 4);
        CHECK_INT(imageio_offer_parse("{\"max_writers\": -1}", 19, &offer, &reason), 0);
        CHECK(!offer.zero && !offer.flush);
        CHECK_INT(offer.max_writers, 1);
}

static void what_is_not_as_it_should_be_counts_as_not_said(void) {
        check("{\"features\": \"extents\", \"max_readers\": \"8\", \"unix_socket\": 7}", false, 1, NULL);
        check("{\"features\": {\"extents\": true}, \"max_readers\": 0, \"unix_socket\": \"\"}", false, 1, NULL);
        check("{\"features\": [[\"extents\"], null, \"extents \"], \"max_readers\": -3}", false, 1, NULL);
        check("{\"max_readers\": 1.5, \"unix_socket\": \"relative\"}", false, 1, NULL);
        check("{\"unix_socket\": \"\\u0000\"}", false, 1, NULL);
        check("{\"unix_socket\": \"\\u0000a\\u0000b\"}", false, 1, NULL);
        check("{\"unix_socket\": \"/a\\u0000b\"}", false, 1, NULL);
        check("{\"unix_socket\": \"/012345678901234567890123456789012345678901234567890123456789012345678901234567890"
              "123456789012345678901234567890\"}", false, 1, NULL);
}

static void what_is_no_object_is_refused(void) {
        static const char *const texts[] = { "", "[]", "null", "{", "{}x", "<html>", "{\"a\": 1, \"a\": 2}" };

        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
                ImageioOffer offer;
                Reason reason = REASON_INIT;

                CHECK_INT(imageio_offer_parse(texts[i], strlen(texts[i]), &offer, &reason), -EPROTO);
                CHECK_SAYS(reason, "no JSON object");
        }
}

int main(void) {
        RUN(offer_of_imageio_is_understood);
        RUN(what_it_takes_for_writes_is_understood);
        RUN(what_is_not_as_it_should_be_counts_as_not_said);
        RUN(what_is_no_object_is_refused);
        return unit_result();
}
