#include "util/timestamp.h"

#include <errno.h>

#include "unit.h"

static void moments_are_written_as_rfc_3339(void) {
        char text[TIMESTAMP_MAX];

        timestamp_format((struct timespec) { 1795136523, 0 }, text);
        CHECK_TEXT(text, "2026-11-20T01:02:03Z");
        timestamp_format((struct timespec) { 1795136523, 1000 }, text);
        CHECK_TEXT(text, "2026-11-20T01:02:03.000001000Z");
        timestamp_format((struct timespec) { INT64_MAX, 999999999 }, text);
        CHECK(text[0]);
}

static void what_was_written_is_read_again(void) {
        static const struct timespec moments[] = {
                { 0, 0 }, { 1795136523, 123456789 }, { 951782400, 1 }, { 253402300799, 999999999 }, { -1, 5 }
        };

        for (size_t i = 0; i < sizeof moments / sizeof *moments; i++) {
                char text[TIMESTAMP_MAX];
                struct timespec again;

                timestamp_format(moments[i], text);
                CHECK_INT(timestamp_parse(text, &again), 0);
                CHECK_INT(again.tv_sec, moments[i].tv_sec);
                CHECK_INT(again.tv_nsec, moments[i].tv_nsec);
        }
}

static void fractions_may_be_short(void) {
        struct timespec t;

        CHECK_INT(timestamp_parse("2026-11-20T01:02:03.5Z", &t), 0);
        CHECK_INT(t.tv_nsec, 500000000);
}

static void what_is_no_moment_is_refused(void) {
        static const char *const texts[] = {
                "", "2026", "2026-11-20", "2026-11-20T01:02:03", "2026-11-20T01:02:03+00:00", "2026-11-20T01:02:03z",
                "2026-02-29T01:02:03Z", "2026-13-20T01:02:03Z", "2026-11-31T01:02:03Z", "2026-11-20T24:02:03Z",
                "2026-11-20T01:02:60Z", "2026-11-20T01:02:03.Z", "2026-11-20T01:02:03.1234567890Z", " 026-11-20T01:02:03Z",
                "2026-11-20 01:02:03Z", "2026-11-20T01:02:03Z ", "2026-11-00T01:02:03Z",
        };
        struct timespec t;

        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
                CHECK_INT(timestamp_parse(texts[i], &t), -EINVAL);
}

int main(void) {
        RUN(moments_are_written_as_rfc_3339);
        RUN(what_was_written_is_read_again);
        RUN(fractions_may_be_short);
        RUN(what_is_no_moment_is_refused);
        return unit_result();
}
