#include "repository/point-name.h"

#include <errno.h>

#include "unit.h"

static void names_of_this_form_are_valid(void) {
        time_t moment;

        CHECK(point_name_is_valid("2026-11-20T010203Z"));
        CHECK(point_name_is_valid("2026-11-20T010203Z-02"));
        CHECK(point_name_is_valid("2026-11-20T010203Z-99"));
        CHECK_INT(point_name_time("2026-11-20T010203Z-07", &moment), 0);
        CHECK_INT(moment, 1795136523);
}

static void other_spellings_are_refused(void) {
        static const char *const wrong[] = { "", "latest", "2026-11-20", "2026-11-20T010203", "2026-11-20T01:02:03Z",
                                             "2026-02-31T010203Z",
                                             "2026-11-20T010203Z-01", "2026-11-20T010203Z-00", "2026-11-20T010203Z-2",
                                             "2026-11-20T010203Z-002", "2026-11-20T010203Z-0x", " 2026-11-20T010203Z",
                                             "2026-11-20T010203Z ",
                                             "2026-11-20T010260Z", "2026-11-20T250203Z", "02026-11-20T010203Z",
                                             "../2026-11-20T010203Z",
                                             "2026-1-20T0010203Z", "2026-11-20T010203Z-02/../../..", "+026-11-20T010203Z" };

        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
                if (point_name_is_valid(wrong[i])) {
                        fprintf(stderr, "accepted: \"%s\"\n", wrong[i]);
                        exit(1);
                }
}

static void the_first_name_is_the_moment(void) {
        char name[POINT_NAME_MAX];

        CHECK_INT(point_name_next(1795136523, NULL, name), 0);
        CHECK_TEXT(name, "2026-11-20T010203Z");
        CHECK_INT(point_name_next(1795136523, "2026-11-20T010202Z", name), 0);
        CHECK_TEXT(name, "2026-11-20T010203Z");
}

static void a_thousand_in_one_second_still_sort_by_age(void) {
        char newest[POINT_NAME_MAX] = "", name[POINT_NAME_MAX];

        for (int i = 0; i < 1000; i++) {
                CHECK_INT(point_name_next(1795136523, newest, name), 0);
                CHECK(point_name_is_valid(name));
                CHECK(strcmp(name, newest) > 0);
                memcpy(newest, name, sizeof newest);
        }
}

static void a_clock_set_back_does_not_sort_before_the_parent(void) {
        char name[POINT_NAME_MAX];

        CHECK_INT(point_name_next(0, "2026-11-20T010203Z", name), 0);
        CHECK_TEXT(name, "2026-11-20T010203Z-02");
        CHECK_INT(point_name_next(0, "2026-11-20T010203Z-99", name), 0);
        CHECK_TEXT(name, "2026-11-20T010204Z");
}

static void the_end_of_the_calendar_is_an_error(void) {
        char name[POINT_NAME_MAX];

        CHECK_INT(point_name_next((time_t) 1 << 60, NULL, name), -ERANGE);
        CHECK_INT(point_name_next(0, "9999-12-31T235959Z-99", name), -ERANGE);
        CHECK_INT(point_name_next(0, "yesterday", name), -EINVAL);
}

int main(void) {
        RUN(names_of_this_form_are_valid);
        RUN(other_spellings_are_refused);
        RUN(the_first_name_is_the_moment);
        RUN(a_thousand_in_one_second_still_sort_by_age);
        RUN(a_clock_set_back_does_not_sort_before_the_parent);
        RUN(the_end_of_the_calendar_is_an_error);
        return unit_result();
}
