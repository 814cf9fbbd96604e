#include "unit.h"
#include "util/cleanup.h"
#include "util/text.h"

static void texts_of_any_length_are_made(void) {
        CLEANUP(freep) char *text = NULL, *longer = NULL;

        CHECK_INT(text_format(&text, "%s-%d", "vm1", 7), 0);
        CHECK_TEXT(text, "vm1-7");
        CHECK_INT(text_format(&longer, "%5000s|%s", "x", text), 0);
        CHECK_INT(strlen(longer), 5006);
        CHECK_TEXT(longer + 4999, "x|vm1-7");
}

int main(void) {
        RUN(texts_of_any_length_are_made);
        return unit_result();
}
