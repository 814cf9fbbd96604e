/* What of a URI is shown, and what stands in its query. */
#include "util/uri.h"

#include <errno.h>

#include "unit.h"
#include "util/cleanup.h"

static void shown_as(const char *text, const char *expected) {
        CLEANUP(freep) char *shown = NULL;

        CHECK_INT(uri_hide_passwords(text, &shown), 0);
        CHECK_TEXT(shown, expected);
}

static void passwords_are_hidden(void) {
        shown_as("qemu+ssh://u:secret@host/system", "qemu+ssh://u:***@host/system");
        shown_as("nbd://u:@h/x", "nbd://u:***@h/x");
        shown_as("nbd://u:a@b:c@h:1/x?y", "nbd://u:***@h:1/x?y");
        shown_as("vda=nbd://u:p@h/x vdb=nbd://u:q@h/y", "vda=nbd://u:***@h/x vdb=nbd://u:***@h/y");
        shown_as("qemu:///system?a=b@c:d", "qemu:///system?a=b@c:d");
        shown_as("", "");
}

static void tickets_are_hidden(void) {
        shown_as("vda=https://h:54322/images/0b3c-1", "vda=https://h:54322/images/***");
        shown_as("vda=https://h/images/0b3c?cafile=/a/images/b", "vda=https://h/images/***?cafile=/a/images/b");
        shown_as("http://u:p@h/images/t vdb=https://h/images/t#f", "http://u:***@h/images/*** vdb=https://h/images/***#f");
        shown_as("https://h/elsewhere/t/extents", "https://h/***");
        shown_as("https://h/images/", "https://h/images/");
        shown_as("https://h/x", "https://h/***");
        shown_as("https://h/", "https://h/");
        shown_as("https://h", "https://h");
        shown_as("nbd://h/images/t file:///images/t", "nbd://h/images/t file:///images/t");
        shown_as("http://:@/x http://:@/x", "http://:***@/*** http://:***@/***");
}

static void parameters_are_taken_one_by_one(void) {
        static const char *const expected[][2] = {
                { "a", "b" }, { "c d", "e&f=" }, { "flag", "" }, { "", "x" }, { "g", "h=i" },
        };
        const char *query = "&a=b&c%20d=e%26f%3D&&flag&=x&g=h=i&";

        for (size_t i = 0; i < 5; i++) {
                CLEANUP(freep) char *name = NULL, *value = NULL;

                CHECK_INT(uri_next_parameter(&query, &name, &value), 1);
                CHECK_TEXT(name, expected[i][0]);
                CHECK_TEXT(value, expected[i][1]);
        }
        CHECK_INT(uri_next_parameter(&query, &(char *) { NULL }, &(char *) { NULL }), 0);
}

static void what_is_no_escape_is_refused(void) {
        static const char *const texts[] = { "%", "%4", "%zz", "%4g", "a%", "%00" };

        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
                char *plain;

                CHECK_INT(uri_unescape(texts[i], strlen(texts[i]), &plain), -EINVAL);
        }
}

static void escaped_text_comes_back(void) {
        CLEANUP(freep) char *escaped = NULL, *plain = NULL;
        const char *text = "/a b/\"?&=#%41+\xc3\xbc\x01";

        CHECK_INT(uri_escape(text, &escaped), 0);
        CHECK_TEXT(escaped, "/a%20b/%22%3F%26%3D%23%2541%2B%C3%BC%01");
        CHECK_INT(uri_unescape(escaped, strlen(escaped), &plain), 0);
        CHECK_TEXT(plain, text);
}

int main(void) {
        RUN(passwords_are_hidden);
        RUN(tickets_are_hidden);
        RUN(parameters_are_taken_one_by_one);
        RUN(what_is_no_escape_is_refused);
        RUN(escaped_text_comes_back);
        return unit_result();
}
