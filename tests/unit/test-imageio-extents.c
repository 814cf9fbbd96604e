/* The lists of extents of an imageio server, good and hostile. */
#include "sources/imageio-extents.h"

#include <errno.h>

#include "unit.h"

/* Takes the text in pieces of so many bytes. */
static int parse_pieces(const char *text, size_t piece, const char *flag, size_t changes_max, ImageioExtents **ret,
                        Reason *reterr) {
        CLEANUP(imageio_extents_freep) ImageioExtents *list = NULL;
        size_t length = strlen(text);
        int rc;

        CHECK_INT(imageio_extents_new(flag, false, changes_max, &list), 0);
        for (size_t at = 0; at < length; at += piece) {
                rc = imageio_extents_take(list, text + at, length - at < piece ? length - at : piece, reterr);
                if (rc < 0)
                        return rc;
        }
        rc = imageio_extents_finish(list, reterr);
        if (rc == 0)
                *ret = STEAL_PTR(list);
        return rc;
}

static ImageioExtents *must_parse(const char *text, const char *flag) {
        ImageioExtents *list;
        Reason reason = REASON_INIT;
        int rc = parse_pieces(text, 1000000, flag, 1000, &list, &reason);

        if (rc < 0)
                fprintf(stderr, "%s: %s\n", text, reason.text);
        CHECK_INT(rc, 0);
        return list;
}

static void list_tells_the_flag_of_each_byte(void) {
        const char *text = "[{\"start\": 0, \"length\": 10, \"zero\": true, \"hole\": false},\n"
                           " {\"length\": 5, \"start\": 10, \"hole\": true, \"zero\": true}, "
                           "{\"start\": 15, \"length\": 1, \"zero\": false, \"dirty\": true},"
                           "{\"zero\": true, \"start\": 16, \"length\": 9223372036854775791}]\r\n";

        for (size_t piece = 1; piece < 9; piece++) {
                CLEANUP(imageio_extents_freep) ImageioExtents *list = NULL;
                uint64_t end;

                CHECK_INT(parse_pieces(text, piece, "zero", 1000, &list, NULL), 0);
                CHECK(imageio_extents_end(list) == INT64_MAX);
                CHECK(imageio_extents_at(list, 0, &end));
                CHECK_INT(end, 15);
                CHECK(imageio_extents_at(list, 14, &end));
                CHECK_INT(end, 15);
                CHECK(!imageio_extents_at(list, 15, &end));
                CHECK_INT(end, 16);
                CHECK(imageio_extents_at(list, 16, &end));
                CHECK(imageio_extents_at(list, INT64_MAX - 1, &end));
                CHECK(end == INT64_MAX);
        }
}

static void empty_list_is_an_empty_disk(void) {
        CLEANUP(imageio_extents_freep) ImageioExtents *list = must_parse(" [ ] ", "zero");

        CHECK_INT(imageio_extents_end(list), 0);
}

static void strings_in_an_entry_are_not_taken_for_its_end(void) {
        CLEANUP(imageio_extents_freep) ImageioExtents *list =
                must_parse("[{\"start\":0,\"x\":\"}]{\\\"}\\\\\",\"length\":7,\"dirty\":true}]", "dirty");

        CHECK_INT(imageio_extents_end(list), 7);
}

static void list_with_more_changes_than_there_is_room_for_ends_in_what_is_safe(void) {
        CLEANUP(imageio_extents_freep) ImageioExtents *list = NULL;
        CLEANUP(freep) char *text = malloc(20001 * 64);
        char *to = text;
        uint64_t end;

        to += sprintf(to, "[");
        for (unsigned i = 0; i < 20000; i++)
                to += sprintf(to, "%s{\"start\":%u,\"length\":3,\"zero\":%s}", i ? "," : "", 3 * i,
                              i % 2 ? "true" : "false");
        sprintf(to, "]");
        CHECK_INT(parse_pieces(text, 4096, "zero", 1000, &list, NULL), 0);
        CHECK_INT(imageio_extents_end(list), 60000);
        for (unsigned i = 0; i < 20000; i++) {
                bool zero = imageio_extents_at(list, 3 * i + 1, &end);

                CHECK(!zero || i % 2);
                if (i < 1000)
                        CHECK(zero == (i % 2) && end == 3 * i + 3);
                else
                        CHECK(!zero && end == 60000);
        }
}

static void hostile_lists_are_refused(void) {
        static const struct {
                const char *text, *words;
        } lists[] = {
                { "", "before it is complete" },
                { "[", "before it is complete" },
                { "[{\"start\": 0, \"length\": 10, \"zero\": true}", "before it is complete" },
                { "[{\"start\": 0, \"length\": 10, \"zero\": true},", "before it is complete" },
                { "[{\"start\": 0, \"length\": 10, \"ze", "before it is complete" },
                { "[{\"start\": 0, \"length\": 10, \"zero\": true},]", "is no JSON list" },
                { "[,]", "is no JSON list" },
                { "[] []", "is no JSON list" },
                { "[]x", "is no JSON list" },
                { "{}", "is no JSON list" },
                { "null", "is no JSON list" },
                { "<html>", "is no JSON list" },
                { "[1]", "is no JSON list" },
                { "[[]]", "is no JSON list" },
                { "[{\"start\": 0, \"length\": 10, \"zero\": true} {\"start\": 10, \"length\": 1, \"zero\": true}]",
                  "is no JSON list" },
                { "[{\"start\": 0 \"length\": 10, \"zero\": true}]", "is no JSON" },
                { "[{\"start\": 0, \"length\": 10, \"zero\": True}]", "is no JSON" },
                { "[{\"start\": 0, \"length\": 10, \"zero\": true, \"zero\": false}]", "is no JSON" },
                { "[{\"start\": 0, \"length\": 99999999999999999999, \"zero\": true}]", "is no JSON" },
                { "[{\"start\": 0, \"length\": 10, \"zero\": true, \"x\": \"\xff\"}]", "is no JSON" },
                { "[{\"start\": 0, \"length\": 10, \"zero\": true, \"x\": {}}]", "within another" },
                { "[{}]", "lacks start" },
                { "[{\"start\": 0, \"length\": 10}]", "lacks start, length or zero" },
                { "[{\"start\": 0, \"length\": 10, \"dirty\": true}]", "lacks start, length or zero" },
                { "[{\"start\": \"0\", \"length\": 10, \"zero\": true}]", "lacks start" },
                { "[{\"start\": 0, \"length\": 10.0, \"zero\": true}]", "lacks start" },
                { "[{\"start\": 0, \"length\": 10, \"zero\": 1}]", "lacks start" },
                { "[{\"start\": 0, \"length\": null, \"zero\": true}]", "lacks start" },
                { "[{\"start\": 1, \"length\": 10, \"zero\": true}]", "gaps" },
                { "[{\"start\": -1, \"length\": 10, \"zero\": true}]", "gaps" },
                { "[{\"start\": 0, \"length\": 10, \"zero\": true}, {\"start\": 9, \"length\": 10, \"zero\": true}]",
                  "overlaps" },
                { "[{\"start\": 0, \"length\": 10, \"zero\": true}, {\"start\": 11, \"length\": 1, \"zero\": true}]",
                  "gaps" },
                { "[{\"start\": 0, \"length\": 0, \"zero\": true}]", "length that cannot be" },
                { "[{\"start\": 0, \"length\": -5, \"zero\": true}]", "length that cannot be" },
                { "[{\"start\": 0, \"length\": 10, \"zero\": true},"
                  " {\"start\": 10, \"length\": 9223372036854775807, \"zero\": true}]", "length that cannot be" },
        };

        for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
                for (size_t piece = 1; piece < 200; piece += 13) {
                        ImageioExtents *list;
                        Reason reason = REASON_INIT;
                        int rc = parse_pieces(lists[i].text, piece, "zero", 1000, &list, &reason);

                        if (rc != -EPROTO)
                                fprintf(stderr, "%s: %d\n", lists[i].text, rc);
                        CHECK_INT(rc, -EPROTO);
                        CHECK_SAYS(reason, lists[i].words);
                }
}

static void entry_without_end_is_refused(void) {
        CLEANUP(imageio_extents_freep) ImageioExtents *list = NULL;
        Reason reason = REASON_INIT;
        int rc = 0;

        CHECK_INT(imageio_extents_new("zero", false, 1000, &list), 0);
        CHECK_INT(imageio_extents_take(list, "[{", 2, &reason), 0);
        for (unsigned i = 0; rc == 0 && i < 10000; i++)
                rc = imageio_extents_take(list, " ", 1, &reason);
        CHECK_INT(rc, -EPROTO);
        CHECK_SAYS(reason, "too long");
}

int main(void) {
        RUN(list_tells_the_flag_of_each_byte);
        RUN(empty_list_is_an_empty_disk);
        RUN(strings_in_an_entry_are_not_taken_for_its_end);
        RUN(list_with_more_changes_than_there_is_room_for_ends_in_what_is_safe);
        RUN(hostile_lists_are_refused);
        RUN(entry_without_end_is_refused);
        return unit_result();
}
