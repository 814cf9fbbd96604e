#include "capture/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "capture-case.h"
#include "chain/chain.h"
#include "chain/chain-map.h"
#include "partitions/point-image.h"
#include "repository/capture-lock.h"
#include "repository/point.h"
#include "unit.h"
#include "util/directory.h"
#include "util/file.h"

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

static void a_source_is_asked_for_extents_once(void) {
        CaptureCase test;

        begin_with_disk(&test);
        CHECK_INT(atomic_load(&test.fake->questions), 1);
        fake_write(test.fake, 0, 700001, 3, 77);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        CHECK_INT(atomic_load(&test.fake->questions), 1);
        capture_case_check(&test);
        capture_case_end(&test);
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

static void lost_bitmap_means_comparing_saying_why(void) {
        CaptureCase test;
        char words[128];

        begin_with_disk(&test);
        fake_write(test.fake, 0, 300000, 100000, 33);
        fake_write(test.fake, 0, 1000000, 200000, 0);
        fake_lose_bitmaps(test.fake);
        snprintf(words, sizeof words, "vm1/vda: compared with %s, as checkpoint virtbackupfs-", test.newest->name);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), -ESTALE);
        CHECK_SAYS(test.reason, "cannot be incremental: checkpoint virtbackupfs-");
        capture_case_check_failed(&test, "cannot be incremental");
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK(strstr(test.warnings, words));
        CHECK(strstr(words, test.newest->parent));
        CHECK_INT(test.newest->kind, POINT_INCREMENTAL);
        CHECK_INT(test.newest->disks[0].kind, POINT_INCREMENTAL);
        CHECK(strstr(test.newest->disks[0].why, "compared with "));
        CHECK(manifest_disk_stored(&test.newest->disks[0]) < 250000);
        capture_case_check(&test);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        CHECK(!test.newest->disks[0].why);
        CHECK_TEXT(test.warnings, "");
        capture_case_check(&test);
        capture_case_end(&test);
}

static void a_bitmap_lost_of_one_disk_is_its_matter_alone(void) {
        CaptureCase test;

        begin_with_disk(&test);
        add_disk(&test, 1, 1000000, "image-b");
        add_disk(&test, 2, 700000, "image-c");
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), 0);
        fake_write(test.fake, 1, 300000, 100000, 33);
        fake_lose_bitmaps_of(test.fake, 1);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), -ESTALE);
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK_INT(test.newest->kind, POINT_INCREMENTAL);
        CHECK(!test.newest->disks[0].why && !test.newest->disks[2].why);
        CHECK(strstr(test.newest->disks[1].why, "compared with "));
        capture_case_check(&test);
        fake_lose_bitmaps_of(test.fake, 2);
        fake_lose_bitmaps_of(test.fake, 0);
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK(test.newest->disks[0].why && !test.newest->disks[1].why && test.newest->disks[2].why);
        capture_case_check(&test);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        CHECK_TEXT(test.warnings, "");
        capture_case_check(&test);
        capture_case_end(&test);
}

static void disk_that_nobody_knows_is_compared(void) {
        CaptureCase test;

        capture_case_begin(&test);
        add_disk(&test, 0, 2000123, "");
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), -ESTALE);
        CHECK_SAYS(test.reason, "cannot be incremental: vda: its image cannot be told from another one");
        for (int change = 0; change < 4; change++) {
                if (change == 1)
                        fake_resize(test.fake, 0, 2600001);
                if (change == 2)
                        fake_resize(test.fake, 0, 1234567);
                for (uint64_t i = 50000 * (uint64_t) change; i < 100000; i++)
                        test.fake->disks[0].now[i] ^= 0x55; /* whatever a bitmap would say */
                test.no_zero_detection = change == 3;
                CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
                CHECK_INT(test.newest->kind, POINT_INCREMENTAL);
                CHECK(strstr(test.warnings, "as its image cannot be told from another one"));
                capture_case_check(&test);
        }
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK(manifest_disk_stored(&test.newest->disks[0]) < 10000);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void compared_disk_takes_what_a_damaged_parent_lacks(void) {
        CaptureCase test;
        char path[128];
        int fd;

        capture_case_begin(&test);
        add_disk(&test, 0, 2000123, "image-a");
        test.fake->disks[0].raw = true;
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        snprintf(path, sizeof path, "data/%s/vda.layer", test.newest->capture);
        fd = openat(vm_fd(test.vm), path, O_RDWR | O_CLOEXEC);
        CHECK(fd >= 0);
        CHECK_INT(pwrite(fd, "damage", 6, 5000), 6);
        close(fd);
        capture_case_reopen(&test);
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK_INT(test.newest->kind, POINT_INCREMENTAL);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void new_and_replaced_disks_are_full_in_an_incremental_point_and_raw_ones_compared(void) {
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
        CHECK_INT(test.newest->disks[2].kind, POINT_INCREMENTAL);
        CHECK(strstr(test.newest->disks[2].why, "compared with "));
        CHECK(strstr(test.newest->disks[2].why, ", as raw image cannot carry a bitmap"));
        CHECK(manifest_disk_stored(&test.newest->disks[2]) < 10000);
        capture_case_check(&test);

        test.fake->disks[0].present = false;
        test.fake->disks[1].present = false;
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), -ESTALE);
        CHECK_SAYS(test.reason, "vdc: raw image cannot carry a bitmap");
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK_INT(test.newest->kind, POINT_INCREMENTAL);
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

static void point_without_a_checkpoint_is_compared_with(void) {
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
        CHECK_INT(test.newest->kind, POINT_INCREMENTAL);
        CHECK(strstr(test.warnings, "has no checkpoint"));
        capture_case_check(&test);
        capture_case_end(&test);
}

static void differential_points_start_from_the_last_full_one(void) {
        CaptureCase test;
        char full[POINT_NAME_MAX];
        uint64_t before = 0;

        begin_with_disk(&test);
        snprintf(full, sizeof full, "%s", test.newest->name);
        for (unsigned i = 0; i < 3; i++) {
                fake_write(test.fake, 0, 400000 * i + 7, 100000, 40 + i);
                CHECK_INT(capture_case_take(&test, CAPTURE_DIFFERENTIAL), 0);
                CHECK_INT(test.newest->kind, POINT_DIFFERENTIAL);
                CHECK_INT(test.newest->disks[0].kind, POINT_DIFFERENTIAL);
                CHECK_TEXT(test.newest->parent, full);
                CHECK_TEXT(test.warnings, "");
                CHECK(manifest_disk_stored(&test.newest->disks[0]) > before);
                before = manifest_disk_stored(&test.newest->disks[0]);
                capture_case_check(&test);

                fake_write(test.fake, 0, 1900000, 50, 40 + i);
                CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
                CHECK(strcmp(test.newest->parent, full) > 0);
                CHECK(manifest_disk_stored(&test.newest->disks[0]) < 100000);
                CHECK(test.newest->full_checkpoint);
                capture_case_check(&test);
        }
        test.fake->fail_at = 8;
        CHECK_INT(capture_case_take(&test, CAPTURE_DIFFERENTIAL), -EIO);
        test.fake->fail_at = 0;
        capture_case_check_failed(&test, " fails");
        CHECK_INT(capture_case_take(&test, CAPTURE_DIFFERENTIAL), 0);
        CHECK_TEXT(test.warnings, "");
        capture_case_check(&test);
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), 0);
        CHECK(!test.newest->full_checkpoint);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void differential_without_the_full_ones_checkpoint_is_compared(void) {
        CaptureCase test;
        char full[POINT_NAME_MAX];

        begin_with_disk(&test);
        snprintf(full, sizeof full, "%s", test.newest->name);
        fake_write(test.fake, 0, 500, 100000, 4);
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        fake_write(test.fake, 0, 900000, 100000, 4);
        CHECK_INT(capture_case_take(&test, CAPTURE_DIFFERENTIAL), 0);
        CHECK_INT(test.newest->kind, POINT_DIFFERENTIAL);
        CHECK_TEXT(test.newest->parent, full);
        CHECK(!test.newest->full_checkpoint);
        CHECK(strstr(test.warnings, ", as the checkpoint of "));
        CHECK(strstr(test.warnings, " was not kept"));
        CHECK(manifest_disk_stored(&test.newest->disks[0]) < 500000);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void too_little_change_makes_no_point(void) {
        CaptureCase test;
        CaptureState state = { 0 };

        begin_with_disk(&test);
        add_disk(&test, 1, 500000, "image-b");
        test.threshold = 100 << 20;
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0); /* a disk that is full is never too little */
        capture_case_check(&test);
        for (int compared = 0; compared < 2; compared++) {
                Manifest *newest = test.newest;

                test.fake->disks[1].raw = compared;
                fake_write(test.fake, 0, 128 << 10, 5000, 11);
                fake_write(test.fake, 1, 256 << 10, 5000, 0);
                test.threshold = (128 << 10) + 1;
                CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 1);
                CHECK_SAYS(test.reason, "vm1: nothing was captured: 131072 bytes changed since ");
                CHECK_TEXT(test.warnings, "");
                CHECK(test.newest == newest);
                CHECK(!test.fake->job);
                CHECK_INT(fake_checkpoint_count(test.fake), 1);
                CHECK(fake_has_checkpoint(test.fake, newest->checkpoint));
                CHECK_INT(capture_state_read(test.vm, &state, NULL), 0);
                CHECK_TEXT(state.last, newest->name);
                capture_state_clear(&state);
                test.threshold = 128 << 10;
                CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
                CHECK(!compared || strstr(test.warnings, "vm1/vdb: compared with "));
                capture_case_check(&test);
                fake_write(test.fake, 1, 256 << 10, 5000, 3);
                test.threshold = 0;
                CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        }
        capture_case_end(&test);
}

/* Clean in the bitmap, zero now and data then. */
static void a_disk_shrunk_and_grown_again_counts_for_the_threshold(void) {
        const unsigned part = 32 << 10, size = (1 << 20) + part; /* where the source tells zeroes */
        CaptureCase test;

        begin_with_disk(&test);
        fake_resize(test.fake, 0, size);
        fake_write(test.fake, 0, 0, size, 5);
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        fake_resize(test.fake, 0, size - part);
        fake_resize(test.fake, 0, size);
        test.threshold = part + 1;
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 1);
        test.threshold = part;
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK_INT(test.newest->disks[0].kind, POINT_INCREMENTAL);
        capture_case_check(&test);
        capture_case_end(&test);
}

static void check_unreadable(CaptureCase *test, uint64_t start, uint64_t length) {
        CLEANUP(chain_view_freep) ChainView *view = NULL;
        CLEANUP(freep) char *map = NULL;
        CLEANUP(json_decrefp) json_t *info = NULL;
        unsigned char byte[1];
        char words[128];
        size_t map_length;

        CHECK_INT(test->newest->disks[0].unreadable, length);
        CHECK_INT(point_info(test->vm, test->newest->name, test->newest, NULL, &info, NULL), 0);
        CHECK_INT(json_integer_value(json_object_get(json_array_get(json_object_get(info, "disks"), 0), "unreadable")),
                  length);
        CHECK_INT(point_image_open_disk(test->vm, test->newest->name, "vda", &view, NULL), 0);
        CHECK_INT(chain_view_read(view, byte, 1, start - 1, NULL), 0);
        CHECK_INT(chain_view_read(view, byte, 1, start, NULL), -EIO);
        CHECK_INT(chain_view_read(view, byte, 1, start + length - 1, NULL), -EIO);
        CHECK_INT(chain_view_read(view, byte, 1, start + length, NULL), 0);
        CHECK_INT(chain_map_json(view, &map, &map_length, NULL), 0);
        snprintf(words, sizeof words,
                 "{\"start\": %llu, \"length\": %llu, \"data\": true, \"zero\": false, \"unreadable\": true",
                 (unsigned long long) start, (unsigned long long) length);
        CHECK(strstr(map, words));
}

static void what_was_skipped_is_unreadable_until_it_can_be_read(void) {
        CaptureCase test;
        FakeDisk *disk;

        capture_case_begin(&test);
        add_disk(&test, 0, 2000123, "image-a");
        disk = &test.fake->disks[0];
        disk->bad_start = 200000;
        disk->bad_length = 1;
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), -EIO);
        test.on_source_error = SOURCE_ERROR_SKIP;
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK(strstr(test.warnings, "unreadable: a bad place"));
        check_unreadable(&test, 192 << 10, 64 << 10);

        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0); /* it is asked for again */
        check_unreadable(&test, 192 << 10, 64 << 10);
        CHECK(manifest_disk_stored(&test.newest->disks[0]) < 10000);
        disk->bad_start = 100000; /* clean, and bad now: the parent has it */
        CHECK_INT(capture_case_take(&test, CAPTURE_INCREMENTAL), 0);
        CHECK_TEXT(test.warnings, "");
        capture_case_check(&test);
        CHECK_INT(test.newest->disks[0].unreadable, 0);
        capture_case_end(&test);
}

static void only_the_top_is_stored_where_asked_for(void) {
        CaptureCase test;
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        unsigned char byte[1];
        ChainExtent extent;
        Reason reason = REASON_INIT;

        capture_case_begin(&test);
        add_disk(&test, 0, 2000123, "image-a");
        strcpy(test.fake->disks[0].backing, "/images/base.qcow2");
        memset(test.fake->disks[0].below, true, sizeof test.fake->disks[0].below);
        fake_write(test.fake, 0, 600000, 100000, 77);
        test.top = true;
        test.fake->no_top = true;
        CHECK_INT(capture_case_take(&test, CAPTURE_FULL), -ENOTSUP);
        capture_case_check_failed(&test, "this source cannot tell what is below");
        test.fake->no_top = false;
        for (int incremental = 0; incremental < 2; incremental++) {
                fake_write(test.fake, 0, 900000, 100, 78);
                CHECK_INT(capture_case_take(&test, incremental ? CAPTURE_INCREMENTAL : CAPTURE_FULL), 0);
                CHECK_TEXT(test.newest->disks[0].backing, "/images/base.qcow2");
                CHECK(manifest_disk_stored(&test.newest->disks[0]) < 250000);
                CHECK_INT(point_check(test.vm, test.newest->name, &reason), 0);
                CHECK_INT(chain_open(test.vm, test.newest->name, "vda", &chain, &reason), 0);
                CHECK_INT(chain_read(chain, byte, 1, 650000, &reason), 0);
                CHECK_INT(byte[0], test.fake->disks[0].then[650000]);
                CHECK_INT(chain_extent_at(chain, 1500000, &extent, &reason), 0);
                CHECK_INT(extent.state, EXTENT_UNREADABLE);
                CHECK_INT(chain_read(chain, byte, 1, 1500000, &reason), -EIO);
                CHECK_SAYS(reason, "its backing file /images/base.qcow2 has it");
                chain = chain_unref(chain);
        }
        test.fake->disks[0].raw = true; /* compared, it is the same */
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK(manifest_disk_stored(&test.newest->disks[0]) < 10000);
        CHECK_TEXT(test.newest->disks[0].backing, "/images/base.qcow2");
        test.fake->disks[0].raw = false;
        test.top = false; /* now all is wanted: what was left out is taken */
        CHECK_INT(capture_case_take(&test, CAPTURE_AUTO), 0);
        CHECK_INT(test.newest->kind, POINT_INCREMENTAL);
        CHECK(!test.newest->disks[0].backing);
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
        RUN(a_source_is_asked_for_extents_once);
        RUN(second_capture_is_incremental);
        RUN(lost_bitmap_means_comparing_saying_why);
        RUN(a_bitmap_lost_of_one_disk_is_its_matter_alone);
        RUN(disk_that_nobody_knows_is_compared);
        RUN(compared_disk_takes_what_a_damaged_parent_lacks);
        RUN(new_and_replaced_disks_are_full_in_an_incremental_point_and_raw_ones_compared);
        RUN(clean_but_different_disk_is_found);
        RUN(shrunk_and_grown_again_is_right);
        RUN(every_failing_request_loses_nothing);
        RUN(killed_at_any_request_loses_nothing);
        RUN(interruption_is_reported_as_such);
        RUN(scratch_space_that_runs_out_is_the_cause);
        RUN(vm_that_goes_off_meanwhile_is_named);
        RUN(second_capture_at_once_is_refused_and_disturbs_nothing);
        RUN(damaged_newest_manifest_means_full_and_keeps_all_data);
        RUN(point_without_a_checkpoint_is_compared_with);
        RUN(differential_points_start_from_the_last_full_one);
        RUN(differential_without_the_full_ones_checkpoint_is_compared);
        RUN(too_little_change_makes_no_point);
        RUN(a_disk_shrunk_and_grown_again_counts_for_the_threshold);
        RUN(what_was_skipped_is_unreadable_until_it_can_be_read);
        RUN(only_the_top_is_stored_where_asked_for);
        RUN(damaged_ancestor_means_full);
        RUN(damaged_layer_means_full);
        RUN(vm_that_is_off_or_another_is_refused);
        return unit_result();
}
