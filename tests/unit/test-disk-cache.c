/* What takes long to make is kept on disk whole or not at all, made once, and within a limit. */
#include <errno.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "formats/disk-cache.h"
#include "temporary.h"
#include "util/io.h"

#define KEY_A "00000000000000000000000000000001"
#define KEY_B "00000000000000000000000000000002"
#define KEY_C "00000000000000000000000000000003"

typedef struct Place {
        TemporaryDirectory directory;
        DiskCache *cache;
        char path[128];
} Place;

static Place new_place(uint64_t limit) {
        Place place = { .directory = temporary_directory() };

        snprintf(place.path, sizeof place.path, "%s/below/cache", place.directory.path);
        CHECK_INT(disk_cache_new(place.path, limit, &place.cache), 0);
        return place;
}

static void clear_place(Place *place) {
        disk_cache_free(place->cache);
        temporary_directory_clear(&place->directory);
}

static size_t count_files(const Place *place) {
        CLEANUP(strings_free) Strings names = { 0 };
        Reason reason = REASON_INIT;

        CHECK_INT(list_directory(place->directory.fd, "below/cache", &names, &reason), 0);
        return names.count;
}

/* Makes a file of so many MiB, or what the attempt ends with. */
static int make(const Place *place, const char *key, size_t mib, Reason *reason) {
        CLEANUP(disk_draft_freep) DiskDraft *draft = NULL;
        static char bytes[1 << 20];
        int rc = disk_draft_new(place->cache, key, "x", &draft, reason);

        memset(bytes, 'x', sizeof bytes);
        for (size_t i = 0; rc == 0 && i < mib; i++) {
                rc = disk_draft_reserve(draft, (i + 1) << 20, reason);
                if (rc == 0)
                        rc = write_whole(disk_draft_fd(draft), bytes, sizeof bytes);
        }
        return rc == 0 ? disk_draft_commit(draft, reason) : rc;
}

static bool is_there(const Place *place, const char *key) {
        CLEANUP(close_fd) int fd = -1;

        return disk_cache_open(place->cache, key, "x", &fd, NULL) == 0;
}

static void how_far_a_file_is_is_known_while_it_is_made(void) {
        Place place = new_place(0);
        uint64_t done = 0, total = 0;
        DiskDraft *draft;
        Reason reason = REASON_INIT;

        CHECK_INT(disk_cache_progress(place.cache, KEY_A, "x", &done, &total), -ENOENT);
        CHECK_INT(disk_draft_new(place.cache, KEY_A, "x", &draft, &reason), 0);
        CHECK_INT(disk_cache_progress(place.cache, KEY_A, "x", &done, &total), -ENOENT);
        disk_draft_tell(draft, 1, 200);
        if (disk_cache_progress(place.cache, KEY_A, "x", &done, &total) == 0) { /* the file system has such attributes */
                disk_draft_tell(draft, 100, 200);
                CHECK_INT(disk_cache_progress(place.cache, KEY_A, "x", &done, &total), 0);
                CHECK_INT(done, 100);
                CHECK_INT(total, 200);
        }
        CHECK_INT(disk_draft_commit(draft, &reason), 0);
        CHECK_INT(disk_cache_progress(place.cache, KEY_A, "x", &done, &total), -ENOENT);
        disk_draft_free(draft);
        clear_place(&place);
}

static void a_file_is_there_once_it_is_whole(void) {
        Place place = new_place(0);
        DiskDraft *draft;
        Reason reason = REASON_INIT;

        CHECK(!is_there(&place, KEY_A));
        CHECK_INT(disk_draft_new(place.cache, KEY_A, "x", &draft, &reason), 0);
        CHECK_INT(write_whole(disk_draft_fd(draft), "abc", 3), 0);
        CHECK(!is_there(&place, KEY_A));
        CHECK_INT(disk_draft_commit(draft, &reason), 0);
        CHECK(is_there(&place, KEY_A));
        disk_draft_free(draft);
        CHECK(is_there(&place, KEY_A));
        CHECK_INT(disk_draft_new(place.cache, KEY_A, "x", &draft, &reason), -EEXIST);
        disk_cache_delete(place.cache, KEY_A, "x");
        CHECK(!is_there(&place, KEY_A));
        CHECK_INT(count_files(&place), 0);
        clear_place(&place);
}

static void what_is_not_finished_is_gone_and_made_by_one_alone(void) {
        Place place = new_place(0);
        DiskDraft *draft, *other;
        Reason reason = REASON_INIT;

        CHECK_INT(disk_draft_new(place.cache, KEY_A, "x", &draft, &reason), 0);
        CHECK_INT(disk_draft_new(place.cache, KEY_A, "x", &other, &reason), -EBUSY);
        CHECK_INT(count_files(&place), 1);
        disk_draft_free(draft);
        CHECK_INT(count_files(&place), 0);
        clear_place(&place);
}

static void leftovers_of_what_was_killed_go_when_room_is_wanted(void) {
        Place place = new_place(64 << 20);
        CLEANUP(close_fd) int fd = -1;
        Reason reason = REASON_INIT;

        CHECK_INT(make(&place, KEY_A, 1, &reason), 0);
        fd = openat(place.directory.fd, "below/cache/" KEY_B ".x.partial", O_WRONLY | O_CREAT, 0600);
        CHECK(fd >= 0);
        CHECK_INT(make(&place, KEY_C, 1, &reason), 0);
        CHECK_INT(count_files(&place), 2);
        clear_place(&place);
}

static void what_was_used_longest_ago_makes_room(void) {
        static const struct timespec long_ago[] = { { .tv_sec = 1 }, { .tv_sec = 1 } };
        Place place = new_place(16 << 20);
        Reason reason = REASON_INIT;
        int fd;

        CHECK_INT(make(&place, KEY_A, 6, &reason), 0);
        CHECK_INT(make(&place, KEY_B, 6, &reason), 0);
        CHECK_INT(utimensat(place.directory.fd, "below/cache/" KEY_B ".x", long_ago, 0), 0);
        CHECK_INT(make(&place, KEY_C, 6, &reason), 0);
        CHECK(is_there(&place, KEY_A) && !is_there(&place, KEY_B) && is_there(&place, KEY_C));
        CHECK_INT(make(&place, KEY_B, 17, &reason), -ENOSPC);
        CHECK_SAYS(reason, "16 MiB in the cache directory");
        CHECK(!is_there(&place, KEY_B));

        /* What is in use stays. */
        CHECK_INT(make(&place, KEY_A, 12, &reason), 0);
        CHECK_INT(disk_cache_open(place.cache, KEY_A, "x", &fd, &reason), 0);
        CHECK_INT(make(&place, KEY_B, 6, &reason), -ENOSPC);
        CHECK(is_there(&place, KEY_A));
        close(fd);
        CHECK_INT(make(&place, KEY_B, 6, &reason), 0);
        CHECK(!is_there(&place, KEY_A));
        clear_place(&place);
}

static void a_directory_that_others_can_write_to_is_not_believed(void) {
        Place place = new_place(0);
        Reason reason = REASON_INIT;
        int fd;

        CHECK_INT(make(&place, KEY_A, 1, &reason), 0);
        CHECK_INT(chmod(place.path, 0777), 0);
        CHECK_INT(disk_cache_open(place.cache, KEY_A, "x", &fd, &reason), -EPERM);
        CHECK_SAYS(reason, "others can write to it");
        CHECK_INT(make(&place, KEY_B, 1, &reason), -EPERM);
        clear_place(&place);
}

int main(void) {
        RUN(a_file_is_there_once_it_is_whole);
        RUN(how_far_a_file_is_is_known_while_it_is_made);
        RUN(what_is_not_finished_is_gone_and_made_by_one_alone);
        RUN(leftovers_of_what_was_killed_go_when_room_is_wanted);
        RUN(what_was_used_longest_ago_makes_room);
        RUN(a_directory_that_others_can_write_to_is_not_believed);
        return unit_result();
}
