#include "unit.h"
#include "util/strings.h"

static void what_was_sorted_is_found_and_nothing_else(void) {
        CLEANUP(strings_free) Strings strings = { 0 };
        char text[16];

        CHECK(!strings_find(&strings, "1"));
        strings_sort(&strings);
        for (unsigned i = 0; i < 100; i++) {
                snprintf(text, sizeof text, "%u", i * 37 % 100);
                CHECK_INT(strings_add(&strings, text), 0);
        }
        strings_sort(&strings);
        for (size_t i = 1; i < strings.count; i++)
                CHECK(strcmp(strings.items[i - 1], strings.items[i]) < 0);
        for (unsigned i = 0; i < 100; i++) {
                snprintf(text, sizeof text, "%u", i);
                CHECK(strings_find(&strings, text));
                CHECK_TEXT(*strings_find(&strings, text), text);
        }
        CHECK(!strings_find(&strings, "100"));
        CHECK(!strings_find(&strings, ""));
}

static void a_list_that_was_freed_can_be_filled_again(void) {
        Strings strings = { 0 };

        for (int round = 0; round < 2; round++) {
                for (int i = 0; i < 5; i++)
                        CHECK_INT(strings_add(&strings, "text"), 0);
                CHECK_INT(strings.count, 5);
                strings_free(&strings);
                CHECK(!strings.items && strings.count == 0);
        }
}

int main(void) {
        RUN(what_was_sorted_is_found_and_nothing_else);
        RUN(a_list_that_was_freed_can_be_filled_again);
        return unit_result();
}
