#include "capture/capture.h"

#include <errno.h>
#include <pthread.h>
#include <unistd.h>

#include "capture-case.h"
#include "repository/capture-lock.h"
#include "unit.h"
#include "util/io.h"

static void add_disk(CaptureCase *test, int disk, uint64_t size, const char *image) {
        FakeDisk *d = &test->fake->disks[disk];

        d->present = true;
        d->size = size;
        snprintf(d->images[0], sizeof d->images[0], "%s", image);
        fake_write(test->fake, disk, 0, size / 3, 5);
        fake_write(test->fake, disk, size / 2, 300000, 9);
}

static void begin_with_disk(CaptureCase *test) {
        capture_case_begin(test);
        add_disk(test, 0, 2000123, "image-a");
        CHECK_INT(capture_case_take(test, CAPTURE_AUTO), 0);
        capture_case_check(test);
}

static void second_capture_is_incremental(void) {
        CaptureCase test;

        capture_case_begin(&test);
        add_disk(&test, 0, 2000123, "image-a");
        add_disk(&test, 1, 900000, "image-b");
        test.fake->many_readers = true;
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK_INT(test.accepted, 1);
        CHECK_INT(test.newest->kind, POINT_FULL);
        CHECK(strstr(test.warnings, "captured in full: there is no point yet"));
        capture_case_check(&test);

        fake_write(test.fake, 0, 700001, 3, 77);
        fake_write(test.fake, 1, 100000, 100000, 0);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        CHECK_INT(test.newest->kind, POINT_INCREMENTAL);
        CHECK(test.newest->parent);
        CHECK_TEXT(test.warnings, "");
        CHECK(manifest_disk_stored(&test.newest->disks[0]) < 150000);
        capture_case_check(&test);

        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), 0);
        CHECK_INT(test.newest->kind, POINT_FULL);
        CHECK(!test.newest->parent);
        CHECK_INT(test.newest->serial, 3);
        CHECK_TEXT(test.warnings, "");
        capture_case_check(&test);
        capture_case_end(&test);
}

static void lost_bitmap_means_full_saying_why(void) {
        CaptureCase test;

        begin_with_disk(&test);
        fake_lose_bitmaps(test.fake);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), -ESTALE);
        CHECK_SAYS(test.reason, "cannot be incremental: checkpoint virtbackupfs-");
        capture_case_check_failed(&test, "cannot be incremental");
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK(strstr(test.warnings, "vm1: captured in full: checkpoint virtbackupfs-"));
        CHECK_INT(test.newest->kind, POINT_FULL);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void new_raw_and_replaced_disks_are_full_in_an_incremental_point(void) {
        CaptureCase test;

        capture_case_begin(&test);
        add_disk(&test, 0, 1000000, "image-a");
        add_disk(&test, 1, 1000000, "image-b");
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        add_disk(&test, 2, 1500000, "image-c");
        strcpy(test.fake->disks[1].images[0], "image-d");
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        CHECK_INT(test.newest->kind, POINT_INCREMENTAL);
        CHECK_INT(test.newest->disks[0].kind, POINT_INCREMENTAL);
        CHECK_INT(test.newest->disks[1].kind, POINT_FULL);
        CHECK(strstr(test.newest->disks[1].why, "its image is another one"));
        CHECK(strstr(test.newest->disks[2].why, "it is not in "));
        CHECK(strstr(test.warnings, "vm1/vdb: captured in full: its image is another one"));
        capture_case_check(&test);

        test.fake->disks[2].raw = true;
        strcpy(test.fake->disks[0].images[1], "image-a"); /* a snapshot overlay on top of the same image */
        strcpy(test.fake->disks[0].images[0], "image-e");
        fake_write(test.fake, 0, 5000, 100000, 3);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        CHECK_INT(test.newest->disks[0].kind, POINT_INCREMENTAL);
        CHECK_INT(test.newest->disks[1].kind, POINT_INCREMENTAL);
        CHECK_TEXT(test.newest->disks[2].why, "raw image cannot carry a bitmap");
        capture_case_check(&test);

        test.fake->disks[0].present = false;
        test.fake->disks[1].present = false;
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), -ESTALE);
        CHECK_SAYS(test.reason, "vdc: raw image cannot carry a bitmap");
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK_INT(test.newest->kind, POINT_FULL);
        CHECK(!test.newest->disks[0].why);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void clean_but_different_disk_is_found(void) {
        CaptureCase test;
        FakeDisk *disk;

        begin_with_disk(&test);
        disk = &test.fake->disks[0];
        for (uint64_t i = 600; i < disk->size; i++)
                disk->now[i] ^= 0x55; /* behind the bitmap's back */
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), -ESTALE);
        CHECK_SAYS(test.reason, "vda: unchanged according to the hypervisor, but the parent differs");
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK_INT(test.newest->kind, POINT_FULL);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void shrunk_and_grown_again_is_right(void) {
        CaptureCase test;

        begin_with_disk(&test);
        fake_resize(test.fake, 0, 1200001);
        fake_resize(test.fake, 0, 2500000);
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        capture_case_check(&test);
        fake_resize(test.fake, 0, 100001);
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void every_failing_request_loses_nothing(void) {
        CaptureCase test;
        unsigned fails = 0;

        begin_with_disk(&test);
        for (unsigned at = 1;; at++) {
                bool first = at % 2;
                int rc;

                fake_write(test.fake, 0, 1000 * at, 200000, at);
                test.fake->many_readers = first;
                test.fake->fail_at = at;
                rc = capture_case_take(&test, CAPTURE_AUTO);
                test.fake->fail_at = 0;
                if (rc == 0 && atomic_load(&test.fake->requests) < at)
                        break;
                if (rc < 0) {
                        fails++;
                        CHECK_SAYS(test.reason, " fails");
                        capture_case_check_failed(&test, " fails");
                }
                /* Else it could do without (another connection), or the point was there already. */
                CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
                capture_case_check(&test);
                CHECK(at < 1000);
        }
        CHECK(fails > 8);
        capture_case_end(&test);
}

static void killed_at_any_request_loses_nothing(void) {
        CaptureCase test;
        unsigned requests;

        begin_with_disk(&test);
        fake_write(test.fake, 0, 1000, 200000, 1);
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        requests = atomic_load(&test.fake->requests);
        for (unsigned at = 1; at <= requests; at++) {
                CaptureState state = { 0 };
                Strings points = { 0 };

                fake_write(test.fake, 0, 1000, 200000, at + 1);
                capture_case_kill(&test, at);
                CHECK_INT(vm_list_points(test.vm, &points, NULL), 0);
                CHECK_INT(capture_state_read(test.vm, &state, NULL), 0);
                if (points.count > test.newest->serial) {
                        manifest_unref(test.newest);
                        CHECK_INT(manifest_read(test.vm, points.items[points.count - 1], &test.newest, NULL), 0);
                        capture_case_check(&test);
                } else
                        capture_case_check_failed(&test, "the capture process was killed");
                strings_free(&points);
                capture_state_clear(&state);
                CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
                capture_case_check(&test);
        }
        capture_case_end(&test);
}

static void interruption_is_reported_as_such(void) {
        CaptureCase test;

        begin_with_disk(&test);
        for (unsigned at = 1; at <= 5; at++) {
                fake_write(test.fake, 0, 0, 1500000, at);
                test.fake->cancel_at = at;
                test.fake->read_takes_ms = 10000;
                CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), -ECANCELED);
                CHECK_SAYS(test.reason, "interrupted");
                capture_case_check_failed(&test, "interrupted");
        }
        test.fake->cancel_at = 0;
        test.fake->read_takes_ms = 0;
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void scratch_space_that_runs_out_is_the_cause(void) {
        CaptureCase test;

        begin_with_disk(&test);
        fake_write(test.fake, 0, 0, 1500000, 1);
        test.fake->watch_fails_after = 3;
        test.fake->read_takes_ms = 10000;
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), -ENOSPC);
        CHECK_SAYS(test.reason, "the scratch space runs out");
        capture_case_check_failed(&test, "the scratch space runs out");
        capture_case_end(&test);
}

static void vm_that_goes_off_meanwhile_is_named(void) {
        CaptureCase test;

        begin_with_disk(&test);
        test.fake->off_at = 8;
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), -EIO);
        CHECK_SAYS(test.reason, "vm1 was shut off while it was captured: vda: the connection broke");
        capture_case_check_failed(&test, "was shut off");
        capture_case_end(&test);
}

static void second_capture_at_once_is_refused_and_disturbs_nothing(void) {
        CaptureCase test;
        CaptureState state = { 0 };
        int lock_fd;

        begin_with_disk(&test);
        CHECK_INT(capture_lock_take(test.vm, &lock_fd, NULL), 0);
        {
                CaptureOptions options = { .codec = codec_by_name("lz4"), .block_size = 65536 };
                Manifest *manifest;

                CHECK_INT(capture_run(test.vm, &options, &manifest, &test.reason), -EBUSY);
        }
        close(lock_fd);
        CHECK_INT(capture_state_read(test.vm, &state, NULL), 0);
        CHECK_INT(state.phase, CAPTURE_IDLE);
        capture_state_clear(&state);
        capture_case_end(&test);
}

static void damaged_newest_manifest_means_full_and_keeps_all_data(void) {
        CaptureCase test;
        char path[64];

        begin_with_disk(&test);
        CHECK_INT(make_directory(vm_fd(test.vm), "data/2020-01-01T000000Z.00000000", NULL), 0);
        snprintf(path, sizeof path, "points/%s.json", test.newest->name);
        CHECK_INT(replace_file(vm_fd(test.vm), path, "{}", 2, NULL), 0);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), -ESTALE);
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK_INT(test.newest->kind, POINT_FULL);
        CHECK_INT(test.newest->serial, 2);
        CHECK_INT(faccessat(vm_fd(test.vm), "data/2020-01-01T000000Z.00000000", F_OK, 0), 0);

        CHECK_INT(unlinkat(vm_fd(test.vm), path, 0), 0);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void point_without_a_checkpoint_is_followed_by_a_full_one(void) {
        CaptureCase test;

        begin_with_disk(&test);
        test.fake->no_checkpoint = true;
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), 0);
        CHECK(!test.newest->checkpoint);
        CHECK_INT(fake_checkpoint_count(test.fake), 0);
        test.fake->no_checkpoint = false;
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), -ESTALE);
        CHECK_SAYS(test.reason, "has no checkpoint");
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void damaged_ancestor_means_full(void) {
        CaptureCase test;
        char path[64];

        begin_with_disk(&test);
        snprintf(path, sizeof path, "points/%s.json", test.newest->name);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        CHECK_INT(replace_file(vm_fd(test.vm), path, "{}", 2, NULL), 0);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), -ESTALE);
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK_INT(test.newest->kind, POINT_FULL);
        capture_case_check(&test);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void damaged_layer_means_full(void) {
        CaptureCase test;
        char path[128];

        begin_with_disk(&test);
        snprintf(path, sizeof path, "data/%s/vda.layer", test.newest->capture);
        CHECK_INT(replace_file(vm_fd(test.vm), path, "nothing", 7, NULL), 0);
        capture_case_reopen(&test);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), -ESTALE);
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK_INT(test.newest->kind, POINT_FULL);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void vm_that_is_off_or_another_is_refused(void) {
        CaptureCase test;

        begin_with_disk(&test);
        test.fake->off = true;
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), -EHOSTDOWN);
        capture_case_check_failed(&test, "not running");
        test.fake->off = false;
        test.fake->uuid[0] = '0';
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), -ESTALE);
        CHECK_SAYS(test.reason, "another VM");
        capture_case_end(&test);
}

int main(int argc, char **argv) {
        capture_case_main(argc, argv);
        RUN(second_capture_is_incremental);
        RUN(lost_bitmap_means_full_saying_why);
        RUN(new_raw_and_replaced_disks_are_full_in_an_incremental_point);
        RUN(clean_but_different_disk_is_found);
        RUN(shrunk_and_grown_again_is_right);
        RUN(every_failing_request_loses_nothing);
        RUN(killed_at_any_request_loses_nothing);
        RUN(interruption_is_reported_as_such);
        RUN(scratch_space_that_runs_out_is_the_cause);
        RUN(vm_that_goes_off_meanwhile_is_named);
        RUN(second_capture_at_once_is_refused_and_disturbs_nothing);
        RUN(damaged_newest_manifest_means_full_and_keeps_all_data);
        RUN(point_without_a_checkpoint_is_followed_by_a_full_one);
        RUN(damaged_ancestor_means_full);
        RUN(damaged_layer_means_full);
        RUN(vm_that_is_off_or_another_is_refused);
        return unit_result();
}
