/* Sources that fail now and then, or in places: lost connections, refused reads, ranges that cannot be read. */
#include <errno.h>

#include "capture-case.h"
#include "chain/chain.h"
#include "unit.h"

#define DISK_SIZE 2500123u
#define BAD_START 1000000u

static void begin(CaptureCase *test) {
        FakeDisk *disk;

        capture_case_begin(test);
        disk = &test->fake->disks[0];
        disk->present = true;
        disk->size = DISK_SIZE;
        snprintf(disk->images[0], sizeof disk->images[0], "image-a");
        fake_write(test->fake, 0, 0, DISK_SIZE, 5);
}

static void one_lost_connection_of_several_is_done_without(void) {
        for (unsigned at = 12; at < 30; at += 3) {
                CaptureCase test;

                begin(&test);
                test.fake->many_readers = true;
                test.fake->lose_at = at;
                CHECK_INT(capture_case_take(&test, CAPTURE_FULL), 0);
                CHECK_TEXT(test.warnings, "");
                capture_case_check(&test);
                capture_case_end(&test);
        }
}

static void the_only_connection_is_replaced_where_that_is_wanted(void) {
        CaptureCase test;

        begin(&test);
        test.fake->lose_at = 15;
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), -ECONNRESET);
        CHECK_SAYS(test.reason, "vda: the connection is lost");
        capture_case_check_failed(&test, "lost");
        test.on_source_error = SOURCE_ERROR_RETRY;
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), 0);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void refused_reads_are_tried_again_where_that_is_wanted(void) {
        CaptureCase test;

        begin(&test);
        atomic_store(&test.fake->refusals, 3);
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), -EIO);
        CHECK_SAYS(test.reason, "vda: refused");
        capture_case_check_failed(&test, "refused");
        atomic_store(&test.fake->refusals, 3);
        test.on_source_error = SOURCE_ERROR_RETRY;
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), 0);
        CHECK_TEXT(test.warnings, "");
        capture_case_check(&test);
        capture_case_end(&test);
}

static void what_can_never_be_read_fails_after_some_tries(void) {
        CaptureCase test;

        begin(&test);
        test.fake->disks[0].bad_start = BAD_START;
        test.fake->disks[0].bad_length = 1;
        test.on_source_error = SOURCE_ERROR_RETRY;
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), -EIO);
        CHECK_SAYS(test.reason, "vda: a bad place");
        capture_case_check_failed(&test, "a bad place");
        capture_case_end(&test);
}

/* The whole block, and no more than that, until it can be read again. */
static void check_skipped(bool bad_loses) {
        CaptureCase test;
        ChainExtent extent;
        Chain *chain;
        Reason reason = REASON_INIT;
        char byte;
        uint64_t start = BAD_START / (64u << 10) * (64u << 10);

        begin(&test);
        test.fake->disks[0].bad_start = BAD_START;
        test.fake->disks[0].bad_length = 100;
        test.fake->bad_loses = bad_loses;
        test.on_source_error = SOURCE_ERROR_SKIP;
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), 0);
        CHECK(strstr(test.warnings, "vm1/vda: 65536 bytes at 983040 are recorded as unreadable: a bad place"));
        CHECK_INT(test.newest->disks[0].unreadable, 64u << 10);
        CHECK_INT(chain_open(test.vm, test.newest->name, "vda", &chain, &reason), 0);
        CHECK_INT(chain_next_extent(chain, BAD_START, &extent, &reason), 0);
        CHECK_INT(extent.state, EXTENT_UNREADABLE);
        CHECK_INT(extent.start, start);
        CHECK_INT(extent.length, 64u << 10);
        CHECK_INT(chain_read(chain, &byte, 1, start - 1, &reason), 0);
        CHECK_INT(chain_read(chain, &byte, 1, start, &reason), -EIO);
        CHECK_INT(chain_read(chain, &byte, 1, start + (64u << 10), &reason), 0);
        chain = chain_unref(chain);

        test.fake->disks[0].bad_length = 0;
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        CHECK_INT(test.newest->disks[0].unreadable, 0);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void what_cannot_be_read_is_recorded_and_read_later(void) {
        check_skipped(false);
}

static void so_is_what_breaks_each_connection(void) {
        check_skipped(true);
}

static void what_cannot_be_read_is_still_skipped_in_an_incremental_point(void) {
        CaptureCase test;

        begin(&test);
        test.fake->disks[0].bad_start = BAD_START;
        test.fake->disks[0].bad_length = 100;
        test.on_source_error = SOURCE_ERROR_SKIP;
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), 0);
        fake_write(test.fake, 0, 2000000, 1000, 7);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        CHECK_INT(test.newest->disks[0].unreadable, 64u << 10);
        capture_case_end(&test);
}

static void little_memory_and_a_rate_are_enough(void) {
        CaptureCase test;

        begin(&test);
        test.memory = 1;
        test.rate = 50u << 20;
        test.fake->many_readers = true;
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), 0);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void what_ends_a_capture_ends_waiting_for_the_rate(void) {
        CaptureCase test;

        begin(&test);
        test.rate = 1;
        test.fake->watch_fails_after = 5;
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), -ENOSPC);
        capture_case_check_failed(&test, "the scratch space runs out");
        capture_case_end(&test);
}

static void comparing_finds_what_differs(void) {
        CaptureCase test;
        unsigned reads;

        begin(&test);
        test.compare = true;
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), 0);
        capture_case_check(&test);
        reads = atomic_load(&test.fake->reads);
        test.fake->decays_at = reads; /* the last of all */
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), -EBADMSG);
        CHECK_SAYS(test.reason, "vda: what was stored is not what the source has");
        capture_case_check_failed(&test, "what was stored is not what the source has");
        capture_case_end(&test);
}

/* What the point leaves to its parent is compared as well. The look at the disk reads each of its 39 blocks once at most,
 * and its first MiB in 16 parts; comparing takes 25 reads at least. */
static void comparing_finds_what_differs_in_the_parent(void) {
        CaptureCase test;

        begin(&test);
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), 0);
        test.compare = true;
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        capture_case_check(&test);
        test.fake->decays_at = 39 + 16 + 1;
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), -EBADMSG);
        CHECK_SAYS(test.reason, "vda: what stays the parent's is not what the source has");
        capture_case_check_failed(&test, "what stays the parent's is not what the source has");
        capture_case_end(&test);
}

int main(int argc, char **argv) {
        capture_case_main(argc, argv);
        RUN(one_lost_connection_of_several_is_done_without);
        RUN(the_only_connection_is_replaced_where_that_is_wanted);
        RUN(refused_reads_are_tried_again_where_that_is_wanted);
        RUN(what_can_never_be_read_fails_after_some_tries);
        RUN(what_cannot_be_read_is_recorded_and_read_later);
        RUN(so_is_what_breaks_each_connection);
        RUN(what_cannot_be_read_is_still_skipped_in_an_incremental_point);
        RUN(little_memory_and_a_rate_are_enough);
        RUN(what_ends_a_capture_ends_waiting_for_the_rate);
        RUN(comparing_finds_what_differs);
        RUN(comparing_finds_what_differs_in_the_parent);
        return unit_result();
}
