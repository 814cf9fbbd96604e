#include "sources/imageio-head.h"

#include <errno.h>

#include "sources/imageio-failure.h"
#include "unit.h"

/* Of an answer with this one line besides the first and the last. */
static int check(const char *line, uint64_t start, uint64_t length, Reason *reason) {
        ImageioHead head = IMAGEIO_HEAD_INIT;

        CHECK_INT(imageio_head_take(&head, "HTTP/1.1 206 Partial\r\n", 22, reason), 0);
        CHECK_INT(imageio_head_take(&head, line, strlen(line), reason), 0);
        CHECK(!head.whole);
        CHECK_INT(imageio_head_take(&head, "\r\n", 2, reason), 0);
        CHECK(head.whole);
        return imageio_head_check(&head, start, length, reason);
}

static void the_range_that_was_asked_for_is_taken(void) {
        Reason reason = REASON_INIT;

        CHECK_INT(check("Content-Range: bytes 4096-8191/65536\r\n", 4096, 4096, &reason), 0);
        CHECK_INT(check("content-range:  bytes 0-0/1\r\n", 0, 1, &reason), 0);
        CHECK_INT(check("Content-Range: bytes 4096-8191/*\r\n", 4096, 4096, &reason), 0);
        CHECK_INT(check("Content-Encoding: identity\r\n", 0, 0, &reason), 0);
        CHECK_INT(check("Content-Length: 5\r\n", 0, 0, &reason), 0);
}

static void another_range_is_refused(void) {
        static const char *const lines[] = {
                "Content-Range: bytes 4095-8190/65536\r\n", "Content-Range: bytes 4096-8190/65536\r\n",
                "Content-Range: bytes 4096-8192/65536\r\n", "Content-Range: bytes 4096-8191/8191\r\n",
        };
        Reason reason = REASON_INIT;

        for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
                CHECK_INT(check(lines[i], 4096, 4096, &reason), -EPROTO);
                CHECK_SAYS(reason, "another range");
        }
}

static void what_is_no_range_is_refused(void) {
        static const char *const lines[] = {
                "Content-Length: 4096\r\n", "Content-Range: bytes */65536\r\n", "Content-Range: bytes -1-8191/65536\r\n",
                "Content-Range: bytes 4096-8191\r\n", "Content-Range: bytes 4096-8191/65536 x\r\n",
                "Content-Range: bytes 4096-8191/99999999999999999999\r\n", "Content-Range: items 4096-8191/65536\r\n",
                "Content-Range:\r\n", "X-Content-Range: bytes 4096-8191/65536\r\n",
        };
        Reason reason = REASON_INIT;

        for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
                CHECK_INT(check(lines[i], 4096, 4096, &reason), -EPROTO);
                CHECK_SAYS(reason, "does not say which range");
        }
        CHECK_INT(check("Content-Encoding: gzip\r\n", 0, 0, &reason), -EPROTO);
        CHECK_SAYS(reason, "encoded");
}

static void two_ranges_are_none_and_a_new_answer_begins_anew(void) {
        static const char first[] = "HTTP/1.1 206 Partial\r\n", range[] = "Content-Range: bytes 0-9/10\r\n";
        ImageioHead head = IMAGEIO_HEAD_INIT;
        Reason reason = REASON_INIT;

        CHECK_INT(imageio_head_take(&head, first, strlen(first), &reason), 0);
        CHECK_INT(imageio_head_take(&head, range, strlen(range), &reason), 0);
        CHECK_INT(imageio_head_take(&head, range, strlen(range), &reason), 0);
        CHECK_INT(imageio_head_check(&head, 0, 10, &reason), -EPROTO);
        CHECK_INT(imageio_head_take(&head, first, strlen(first), &reason), 0);
        CHECK_INT(imageio_head_check(&head, 0, 10, &reason), -EPROTO);
        CHECK_INT(imageio_head_take(&head, range, strlen(range), &reason), 0);
        CHECK_INT(imageio_head_check(&head, 0, 10, &reason), 0);
}

static void headers_without_end_are_refused(void) {
        ImageioHead head = IMAGEIO_HEAD_INIT;
        Reason reason = REASON_INIT;
        char line[1000];
        int rc = 0;

        memset(line, 'x', sizeof line);
        for (int i = 0; rc == 0 && i < 1000; i++)
                rc = imageio_head_take(&head, line, sizeof line, &reason);
        CHECK_INT(rc, -EPROTO);
        CHECK_SAYS(reason, "without end");
}

static void the_ticket_is_in_no_words(void) {
        char words[] = "no ticket 1234-5678 here\nnor 1234-5678", transfer[] = "bad URL http://h/images/1234-5678";
        char twice[] = "1234-56781234-5678", umlauts[] = "Schl\xc3\xbcssel";
        Reason reason = REASON_INIT;

        CHECK_INT(imageio_fail_status(403, words, "1234-5678", &reason), -EACCES);
        CHECK_SAYS(reason, "(no ticket *** here)");
        CHECK(!strstr(reason.text, "1234"));
        CHECK_INT(imageio_fail_status(500, twice, "1234-5678", &reason), -EIO);
        CHECK_SAYS(reason, "(******)");
        CHECK_INT(imageio_fail_status(302, umlauts, "1234-5678", &reason), -EPROTO);
        CHECK_SAYS(reason, "not followed (Schl??ssel)");
        CHECK_INT(imageio_fail_transfer(CURLE_COULDNT_CONNECT, transfer, "1234-5678", &reason), -ECONNREFUSED);
        CHECK_TEXT(reason.text, "bad URL http://h/images/***");
}

int main(void) {
        RUN(the_range_that_was_asked_for_is_taken);
        RUN(another_range_is_refused);
        RUN(what_is_no_range_is_refused);
        RUN(two_ranges_are_none_and_a_new_answer_begins_anew);
        RUN(headers_without_end_are_refused);
        RUN(the_ticket_is_in_no_words);
        return unit_result();
}
