#include "repository/point.h"

#include <errno.h>
#include <time.h>

#include "repository-fixture.h"
#include "util/file.h"
#include "util/io.h"
#include "util/sealed-json.h"

#define A "2026-11-20T010203Z"
#define B "2026-11-20T010204Z"
#define C "2026-11-20T010205Z"

static void damage(Fixture *f, const char *name) {
        char path[64];

        snprintf(path, sizeof path, "points/%s.json", name);
        CHECK_INT(replace_file(vm_fd(f->vm), path, "x", 1, NULL), 0);
}

static const char *text_of(const json_t *object, const char *key) {
        return json_string_value(json_object_get(object, key));
}

static void a_chain_whose_points_are_all_there_is_complete(void) {
        WITH_FIXTURE(f);
        CLEANUP(json_decrefp) json_t *vm = NULL;
        const json_t *point, *disk;
        Reason reason = REASON_INIT;

        commit_point(&f, A, NULL, 1);
        commit_point(&f, B, A, 2);
        CHECK_INT(point_check(f.vm, A, &reason), 0);
        CHECK_INT(point_check(f.vm, B, &reason), 0);
        CHECK_INT(point_check(f.vm, C, &reason), -ENOENT);
        CHECK_INT(vm_describe(f.vm, C, &vm, &reason), -ENOENT);
        CHECK_SAYS(reason, "vm1 has no point " C);
        CHECK_INT(vm_describe(f.vm, B, &vm, &reason), 0);
        CHECK_INT(json_array_size(json_object_get(vm, "points")), 1);
        point = json_array_get(json_object_get(vm, "points"), 0);
        CHECK_TEXT(text_of(point, "name"), B);
        CHECK_TEXT(text_of(point, "kind"), "incremental");
        CHECK_TEXT(text_of(point, "time"), "2026-11-20T01:02:03.000000005Z");
        CHECK_TEXT(text_of(point, "parent"), A);
        CHECK_TEXT(text_of(point, "checkpoint"), "virtbackupfs-1");
        CHECK_INT(json_integer_value(json_object_get(point, "stored")), 2 * 777);
        CHECK(json_is_true(json_object_get(point, "complete")));
        CHECK(!json_object_get(point, "reason"));
        CHECK_INT(json_array_size(json_object_get(point, "disks")), 2);
        disk = json_array_get(json_object_get(point, "disks"), 1);
        CHECK_TEXT(text_of(disk, "name"), "vdb");
        CHECK_TEXT(text_of(disk, "kind"), "incremental");
        CHECK_INT(json_integer_value(json_object_get(disk, "size")), 1000001);
        CHECK_INT(json_integer_value(json_object_get(disk, "allocated")), 4096);
        CHECK_INT(json_integer_value(json_object_get(disk, "stored")), 777);
        CHECK(!json_object_get(disk, "why"));
}

static void a_damaged_ancestor_reaches_all_that_need_it_and_no_other(void) {
        WITH_FIXTURE(f);
        CLEANUP(json_decrefp) json_t *vm = NULL;
        const json_t *points;
        Reason reason = REASON_INIT;

        commit_point(&f, A, NULL, 1);
        commit_point(&f, B, A, 2);
        commit_point(&f, C, B, 3);
        commit_point(&f, C "-02", NULL, 4);
        damage(&f, A);
        CHECK_INT(point_check(f.vm, A, &reason), -EBADMSG);
        CHECK_SAYS(reason, "points/" A ".json is damaged");
        CHECK_INT(point_check(f.vm, C, &reason), -EBADMSG);
        CHECK_SAYS(reason, "vm1/" C " is not complete: its ancestor " A ": ");
        CHECK_INT(point_check(f.vm, C "-02", &reason), 0);

        CHECK_INT(vm_describe(f.vm, NULL, &vm, &reason), 0);
        points = json_object_get(vm, "points");
        CHECK_INT(json_array_size(points), 4);
        for (size_t i = 0; i < 4; i++) {
                const json_t *point = json_array_get(points, i);

                CHECK_INT(json_is_true(json_object_get(point, "complete")), i == 3);
                CHECK_INT(json_object_get(point, "reason") != NULL, i < 3);
        }
        CHECK(json_is_null(json_object_get(json_array_get(points, 0), "kind")));
        CHECK_INT(json_array_size(json_object_get(json_array_get(points, 0), "disks")), 0);
        CHECK(strstr(text_of(json_array_get(points, 2), "reason"), A));
}

static void a_missing_ancestor_is_named(void) {
        WITH_FIXTURE(f);
        CLEANUP(json_decrefp) json_t *vm = NULL;
        Reason reason = REASON_INIT;

        commit_point(&f, B, A, 2);
        commit_point(&f, C, B, 3);
        CHECK_INT(point_check(f.vm, C, &reason), -EBADMSG);
        CHECK_SAYS(reason, "its ancestor " A " is missing");
        CHECK_INT(vm_describe(f.vm, C, &vm, &reason), 0);
        CHECK_TEXT(text_of(json_array_get(json_object_get(vm, "points"), 0), "reason"), "its ancestor " A " is missing");
}

static void ancestors_that_no_disk_needs_do_not_matter(void) {
        static const char *const disks[] = { "vda", "vdb" };
        WITH_FIXTURE(f);
        CLEANUP(manifest_unrefp) Manifest *full = sample_manifest(B, A, 2, disks, 2);
        CLEANUP(manifest_unrefp) Manifest *mixed = sample_manifest(C, B, 3, disks, 2);
        Reason reason = REASON_INIT;

        full->disks[0].kind = full->disks[1].kind = POINT_FULL;
        mixed->disks[0].kind = POINT_FULL;
        CHECK_INT(manifest_commit(f.vm, full, &reason), 0);
        CHECK_INT(manifest_commit(f.vm, mixed, &reason), 0);
        CHECK_INT(point_check(f.vm, B, &reason), 0);
        CHECK_INT(point_check(f.vm, C, &reason), 0);
}

static void a_disk_that_the_parent_lacks_is_named(void) {
        static const char *const disks[] = { "vda", "vdc" };
        WITH_FIXTURE(f);
        CLEANUP(manifest_unrefp) Manifest *m = sample_manifest(B, A, 2, disks, 2);
        Reason reason = REASON_INIT;

        commit_point(&f, A, NULL, 1);
        CHECK_INT(manifest_commit(f.vm, m, &reason), 0);
        CHECK_INT(point_check(f.vm, B, &reason), -EBADMSG);
        CHECK_SAYS(reason, "its ancestor " A " has no disk vdc");
}

static void the_info_of_a_point_has_its_vm(void) {
        WITH_FIXTURE(f);
        CLEANUP(json_decrefp) json_t *info = NULL;
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;

        commit_point(&f, A, NULL, 1);
        CHECK_INT(manifest_read(f.vm, A, &manifest, NULL), 0);
        CHECK_INT(point_info(f.vm, A, manifest, "its ancestor is lost", &info, NULL), 0);
        CHECK_TEXT(text_of(info, "vm"), "vm1");
        CHECK_TEXT(text_of(info, "name"), A);
        CHECK_TEXT(text_of(info, "reason"), "its ancestor is lost");
}

static void words_are_resolved_to_points(void) {
        WITH_FIXTURE(f);
        char name[POINT_NAME_MAX];
        Reason reason = REASON_INIT;

        CHECK_INT(point_resolve(f.vm, "latest", name, &reason), -ENOENT);
        CHECK_SAYS(reason, "vm1 has no points yet");
        commit_point(&f, A, NULL, 1);
        commit_point(&f, B, A, 2);
        CHECK_INT(point_resolve(f.vm, "latest", name, &reason), 0);
        CHECK_TEXT(name, B);
        CHECK_INT(point_resolve(f.vm, A, name, &reason), 0);
        CHECK_TEXT(name, A);
        CHECK_INT(point_resolve(f.vm, C, name, &reason), -ENOENT);
        CHECK_INT(point_resolve(f.vm, "../../x", name, &reason), -ENOENT);
        CHECK_TEXT(name, A);
}

static void passwords_are_not_shown(void) {
        static const char *const sources[][2] = {
                { "qemu+ssh://root:s3cret@host/system", "qemu+ssh://root:***@host/system" },
                { "qemu+ssh://root@host/system", "qemu+ssh://root@host/system" },
                { "qemu:///system?domain=a:b@c", "qemu:///system?domain=a:b@c" },
                { "vda=nbd://a:b@h/x vdb=nbd://:p:q@r@h:10809", "vda=nbd://a:***@h/x vdb=nbd://:***@h:10809" },
                { "file:///a:b@c", "file:///a:b@c" },
                { "://:@", "://:***@" },
                { "", NULL },
        };

        for (size_t i = 0; sources[i][1]; i++) {
                WITH_FIXTURE(f);
                CLEANUP(json_decrefp) json_t *vm = NULL;

                CHECK_INT(vm_forget(f.vm, false, NULL), 0);
                CHECK_INT(vm_add(f.repository, "vm1", FIXTURE_UUID, sources[i][0], NULL, NULL), 0);
                f.vm = vm_free(f.vm);
                CHECK_INT(vm_open(f.repository, "vm1", &f.vm, NULL), 0);
                CHECK_TEXT(vm_source(f.vm), sources[i][0]);
                CHECK_INT(vm_describe(f.vm, NULL, &vm, NULL), 0);
                CHECK_TEXT(text_of(vm, "source"), sources[i][1]);
                CHECK_TEXT(text_of(vm, "uuid"), FIXTURE_UUID);
        }
}

static double cpu_seconds(void) {
        struct timespec t;

        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return (double) t.tv_sec + (double) t.tv_nsec / 1e9;
}

/* Not written through manifest_commit(), whose syncing takes its time. */
static void link_points(Fixture *f, int first, int count) {
        static const char *const disks[] = { "vda" };
        char parent[POINT_NAME_MAX], name[POINT_NAME_MAX], path[64];

        for (int i = first; i < first + count; i++) {
                CLEANUP(manifest_unrefp) Manifest *m = NULL;
                CLEANUP(freep) char *text = NULL;
                CLEANUP(close_fd) int fd = -1;
                CLEANUP(json_decrefp) json_t *object = NULL;
                size_t length;

                snprintf(name, sizeof name, "2026-11-20T%02d%02d%02dZ", i / 3600, i / 60 % 60, i % 60);
                if (i == 0) {
                        m = sample_manifest(name, NULL, 1, disks, 1);
                        CHECK_INT(manifest_commit(f->vm, m, NULL), 0);
                        continue;
                }
                snprintf(parent, sizeof parent, "2026-11-20T%02d%02d%02dZ", (i - 1) / 3600, (i - 1) / 60 % 60, (i - 1) % 60);
                object = json_pack("{s:s, s:i, s:[], s:s, s:s, s:s, s:i, s:s, s:s, s:s, s:s, s:n,"
                                   " s:[{s:s, s:i, s:i, s:s, s:[], s:[{s:s, s:s, s:i, s:s}]}], s:[]}",
                                   "format", "virtbackupfs point", "version", 1, "features", "name", name, "vm", "vm1",
                                   "vm_uuid", FIXTURE_UUID, "serial", i + 1, "capture", name, "kind", "incremental",
                                   "time", "2026-11-20T01:02:03Z", "parent", parent, "checkpoint", "disks", "name", "vda",
                                   "size", 4096, "allocated", 4096, "kind", "incremental", "images", "layers",
                                   "format", "native", "file", "vda.layer", "length", 7, "seal", "0123456789abcdef",
                                   "files");
                CHECK(object);
                CHECK_INT(sealed_json_dump(object, &text, &length, NULL), 0);
                snprintf(path, sizeof path, "points/%s.json", name);
                fd = open_beneath(vm_fd(f->vm), path, O_WRONLY | O_CREAT | O_EXCL, 0600);
                CHECK(fd >= 0);
                CHECK_INT(write_whole(fd, text, length), 0);
        }
}

static double seconds_to_list(Fixture *f, size_t count) {
        CLEANUP(json_decrefp) json_t *vm = NULL;
        double before = cpu_seconds();

        CHECK_INT(vm_describe(f->vm, NULL, &vm, NULL), 0);
        CHECK_INT(json_array_size(json_object_get(vm, "points")), count);
        CHECK(json_is_true(json_object_get(json_array_get(json_object_get(vm, "points"), count - 1), "complete")));
        return cpu_seconds() - before;
}

static void long_chains_cost_what_they_have_points(void) {
        WITH_FIXTURE(f);
        double short_time, long_time;
        Reason reason = REASON_INIT;

        link_points(&f, 0, 500);
        short_time = seconds_to_list(&f, 500);
        link_points(&f, 500, 7500);
        long_time = seconds_to_list(&f, 8000);
        /* 16 times the points: a cost that grew with their square would be 256 times as much. */
        CHECK(long_time < (short_time + 0.001) * 80);
        CHECK_INT(point_check(f.vm, "2026-11-20T021319Z", &reason), 0);
        CHECK_INT(unlinkat(vm_fd(f.vm), "points/2026-11-20T000000Z.json", 0), 0);
        CHECK_INT(point_check(f.vm, "2026-11-20T021319Z", &reason), -EBADMSG);
        CHECK_SAYS(reason, "its ancestor 2026-11-20T000000Z is missing");
}

int main(void) {
        RUN(a_chain_whose_points_are_all_there_is_complete);
        RUN(a_damaged_ancestor_reaches_all_that_need_it_and_no_other);
        RUN(a_missing_ancestor_is_named);
        RUN(ancestors_that_no_disk_needs_do_not_matter);
        RUN(a_disk_that_the_parent_lacks_is_named);
        RUN(the_info_of_a_point_has_its_vm);
        RUN(words_are_resolved_to_points);
        RUN(passwords_are_not_shown);
        RUN(long_chains_cost_what_they_have_points);
        return unit_result();
}
