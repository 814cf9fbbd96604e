/* Which disk and which point qcow2 images are, as told by their names and backing files. */
#include <sys/stat.h>

#include "formats/qcow2/find.h"
#include "formats/qcow2/image-name.h"
#include "temporary.h"
#include "unit.h"
#include "util/io.h"

#define KEY "(qcow2 images)"
#define NOON 1700000000

/* A directory with images, each as short as it can be, a minute apart; found in path ("" or "sub"). */
typedef struct Case {
        TemporaryDirectory directory;
        LayerStore *store;
        Findings findings;
        unsigned count;
} Case;

static Case case_new(void) {
        Case c = { .directory = temporary_directory() };

        CHECK_INT(layer_store_new(c.directory.fd, 1 << 20, &c.store), 0);
        CHECK_INT(mkdirat(c.directory.fd, "sub", 0700), 0);
        return c;
}

static void case_clear(Case *c) {
        findings_clear(&c->findings);
        layer_store_free(c->store);
        temporary_directory_clear(&c->directory);
}

static void put_file(Case *c, const char *name, const void *bytes, size_t length) {
        CLEANUP(close_fd) int fd = openat(c->directory.fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        struct timespec times[2] = { { .tv_sec = NOON + 60 * c->count }, { .tv_sec = NOON + 60 * c->count } };

        c->count++;
        CHECK(fd >= 0);
        CHECK_INT(write_whole(fd, bytes, length), 0);
        CHECK_INT(futimens(fd, times), 0);
}

/* backing, format: NULL: none said. */
static void put_image(Case *c, const char *name, const char *backing, const char *format) {
        unsigned char bytes[512] = "QFI\xfb\0\0\0\3";

        bytes[23] = 9;
        bytes[103] = 104;
        if (backing) {
                bytes[14] = 1; /* at 256 */
                bytes[19] = (unsigned char) strlen(backing);
                memcpy(bytes + 256, backing, strlen(backing));
        }
        if (format) {
                memcpy(bytes + 104, "\xe2\x79\x2a\xca\0\0\0", 7);
                bytes[111] = (unsigned char) strlen(format);
                memcpy(bytes + 112, format, strlen(format));
        }
        put_file(c, name, bytes, sizeof bytes);
}

static void find_in(Case *c, const char *path) {
        CLEANUP(strings_free) Strings names = { 0 };
        CLEANUP(freep) FoundEntry *entries = NULL;
        FoundDirectory directory = { .store = c->store, .path = path, .findings = &c->findings };
        Reason reason = REASON_INIT;

        CHECK_INT(list_directory(c->directory.fd, *path ? path : ".", &names, &reason), 0);
        entries = calloc(names.count + 1, sizeof *entries);
        CHECK(entries);
        for (size_t i = 0; i < names.count; i++) {
                CLEANUP(freep) char *file = NULL;

                entries[i].name = names.items[i];
                file = found_path(&directory, names.items[i]);
                CHECK(file);
                CHECK_INT(fstatat(c->directory.fd, file, &entries[i].st, AT_SYMLINK_NOFOLLOW), 0);
        }
        directory.entries = entries;
        directory.entry_count = names.count;
        CHECK_INT(qcow2_find(&directory, &reason), 0);
}

static const FoundLayer *layer_of(const Case *c, const char *path) {
        for (size_t i = 0; i < c->findings.layer_count; i++)
                if (strcmp(c->findings.layers[i].location.path, path) == 0)
                        return &c->findings.layers[i];
        fprintf(stderr, "%s was not found\n", path);
        exit(1);
}

/* parent: label; NULL: none. */
static void check_layer(const Case *c, const char *path, const char *disk, const char *label, const char *parent) {
        const FoundLayer *layer = layer_of(c, path);

        CHECK(!layer->problem);
        CHECK_TEXT(layer->disk, disk);
        CHECK(strncmp(layer->point, KEY, strlen(KEY)) == 0);
        CHECK_TEXT(layer->point + strlen(KEY), label);
        CHECK_INT(layer->parent != NULL, parent != NULL);
        if (parent)
                CHECK_TEXT(layer->parent + strlen(KEY), parent);
        CHECK_INT(layer->kind, parent ? FOUND_INCREMENTAL : FOUND_FULL);
}

static void disks_that_are_named_alike_have_the_same_points(void) {
        CLEANUP(case_clear) Case c = case_new();

        put_image(&c, "vda.qcow2", NULL, NULL);
        put_image(&c, "vda.noon", "vda.qcow2", "qcow2");
        put_image(&c, "vda.night", "vda.noon", "qcow2");
        put_image(&c, "vdb.img", NULL, NULL);
        put_image(&c, "vdb.night", "vdb.img", NULL);
        put_image(&c, "data-1-b.qcow2", "data-1-a.qcow2", "qcow2");
        put_image(&c, "data-1-a.qcow2", NULL, NULL);
        find_in(&c, "");
        check_layer(&c, "vda.qcow2", "vda", "", NULL);
        check_layer(&c, "vda.noon", "vda", "noon", "");
        check_layer(&c, "vda.night", "vda", "night", "noon");
        check_layer(&c, "vdb.img", "vdb", "", NULL);
        check_layer(&c, "vdb.night", "vdb", "night", "");
        check_layer(&c, "data-1-a.qcow2", "data-1-a", "a", NULL);
        check_layer(&c, "data-1-b.qcow2", "data-1-a", "b", "a");
}

static void numbers_that_are_no_dates_are_of_the_disk(void) {
        CLEANUP(case_clear) Case c = case_new();

        put_image(&c, "vda-202898.qcow2", NULL, NULL);
        put_image(&c, "vda-20001.qcow2", NULL, NULL);
        put_image(&c, "vda-20260132.qcow2", NULL, NULL);
        find_in(&c, "");
        check_layer(&c, "vda-202898.qcow2", "vda-202898", "", NULL);
        check_layer(&c, "vda-20001.qcow2", "vda-20001", "", NULL);
        check_layer(&c, "vda-20260132.qcow2", "vda-20260132", "", NULL);
}

static void dates_are_of_the_point_and_not_of_the_disk(void) {
        CLEANUP(case_clear) Case c = case_new();

        put_image(&c, "web-2024-01-01.qcow2", NULL, NULL);
        put_image(&c, "web-2024-01-02.qcow2", "web-2024-01-01.qcow2", "qcow2");
        put_image(&c, "db_2024-01-01.qcow2", NULL, NULL);
        put_image(&c, "db_2024-03-02.qcow2", NULL, NULL);
        find_in(&c, "");
        check_layer(&c, "web-2024-01-01.qcow2", "web", "2024-01-01", NULL);
        check_layer(&c, "web-2024-01-02.qcow2", "web", "2024-01-02", "2024-01-01");
        check_layer(&c, "db_2024-01-01.qcow2", "db", "2024-01-01", NULL);
        check_layer(&c, "db_2024-03-02.qcow2", "db", "2024-03-02", NULL);
}

static void what_would_be_called_the_same_is_told_apart(void) {
        CLEANUP(case_clear) Case c = case_new();

        put_image(&c, "vda.qcow2", NULL, NULL);
        put_image(&c, "vda.img", NULL, NULL);
        put_image(&c, "x.qcow2", NULL, NULL);
        put_image(&c, "x-1.qcow2", "x.qcow2", NULL);
        put_image(&c, "x.1.qcow2", "x.qcow2", NULL);
        find_in(&c, "");
        check_layer(&c, "vda.img", "vda", "", NULL);
        check_layer(&c, "vda.qcow2", "vda.qcow2", "", NULL);
        check_layer(&c, "x-1.qcow2", "x", "1", "");
        check_layer(&c, "x.1.qcow2", "x", "x.1.qcow2", "");
}

static void an_incremental_push_backup_is_based_on_the_one_before_it(void) {
        CLEANUP(case_clear) Case c = case_new();

        put_image(&c, "vm.qcow2", NULL, NULL);
        put_image(&c, "vm.qcow2.1700000500", NULL, NULL);
        put_image(&c, "vm.qcow2.zz", "/images/vm.qcow2", "qcow2"); /* older by the file's time */
        put_image(&c, "vm.qcow2.1700000700", "/images/vm.qcow2", "qcow2");
        put_image(&c, "vm.qcow2.1700000600", "/images/vm.qcow2", "qcow2");
        put_image(&c, "vm.qcow2.1700000800", NULL, NULL);
        find_in(&c, "");
        check_layer(&c, "vm.qcow2.1700000500", "vm", "1700000500", NULL);
        check_layer(&c, "vm.qcow2.1700000600", "vm", "1700000600", "1700000500");
        check_layer(&c, "vm.qcow2.1700000700", "vm", "1700000700", "1700000600");
        check_layer(&c, "vm.qcow2.1700000800", "vm", "1700000800", NULL);
        check_layer(&c, "vm.qcow2", "vm", "", NULL);
        check_layer(&c, "vm.qcow2.zz", "vm", "zz", ""); /* there is no full one before: what the header says */
        CHECK_INT(layer_of(&c, "vm.qcow2.1700000600")->time.tv_sec, 1700000600);
        CHECK(strstr(layer_of(&c, "vm.qcow2.1700000600")->note, "taken for that is vm.qcow2.1700000500"));
}

static void qmpbackups_names_tell_the_chain(void) {
        CLEANUP(case_clear) Case c = case_new();

        put_image(&c, "sub/INC-1700000600-sda.qcow2", NULL, NULL);
        put_image(&c, "sub/FULL-1700000500-sda.qcow2", NULL, NULL);
        put_image(&c, "sub/INC-1700000400-sda.qcow2", NULL, NULL);
        find_in(&c, "sub");
        CHECK_TEXT(layer_of(&c, "sub/INC-1700000600-sda.qcow2")->parent, "sub/" KEY "1700000500");
        CHECK_TEXT(layer_of(&c, "sub/INC-1700000600-sda.qcow2")->disk, "sda");
        CHECK(!layer_of(&c, "sub/FULL-1700000500-sda.qcow2")->parent);
        CHECK_TEXT(layer_of(&c, "sub/INC-1700000400-sda.qcow2")->problem,
                   "it is incremental, and what it is based on is not there");
}

static void a_name_of_a_backing_file_is_taken_as_qemu_takes_it(void) {
        static const struct {
                const char *backing;
                bool is_found;
        } names[] = {
                { "base", true }, { "./base", true }, { "../sub/base", true }, { "file:base", true },
                { "sub/../base", true }, { "/somewhere/else/base", true }, { "../../base", true },
                { "json:{\"driver\":\"qcow2\",\"file\":{\"driver\":\"file\",\"filename\":\"base\"}}", true },
                { "json:{\"file.filename\":\"/x/base\",\"driver\":\"qcow2\"}", true },
                { "json:{\"driver\":\"nbd\"}", false }, { "json:{", false }, { "nbd:localhost:10809", false },
                { "nbd+unix:///?socket=/base", false }, { "rbd:pool/base", false }, { "..", false }, { "/", false },
                { "other", false }, { "base/", true }, { "base/base2", false },
        };

        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                CLEANUP(case_clear) Case c = case_new();
                const FoundLayer *layer;

                put_image(&c, "sub/base", NULL, NULL);
                put_image(&c, "sub/top", names[i].backing, NULL);
                find_in(&c, "sub");
                layer = layer_of(&c, "sub/top");
                if (!layer->problem != names[i].is_found) {
                        fprintf(stderr, "%s: %s\n", names[i].backing, layer->problem ?: "found");
                        exit(1);
                }
        }
}

static void what_is_said_to_be_raw_is_raw_whatever_it_looks_like(void) {
        CLEANUP(case_clear) Case c = case_new();

        put_image(&c, "looks", NULL, NULL);
        put_file(&c, "garbage", "QFI\xfb\0\0\0\x63", 8);
        put_image(&c, "top1", "looks", "raw");
        put_image(&c, "top2", "garbage", "raw");
        put_image(&c, "top3", "looks", "qcow2");
        find_in(&c, "");
        CHECK_TEXT(layer_of(&c, "looks")->location.format, "raw");
        CHECK_INT(layer_of(&c, "looks")->size, 512);
        CHECK_TEXT(layer_of(&c, "garbage")->location.format, "raw");
        CHECK_TEXT(layer_of(&c, "top1")->location.member, "parent=512");
        CHECK_TEXT(layer_of(&c, "top2")->location.member, "parent=8");
        CHECK_TEXT(layer_of(&c, "top3")->problem, "its backing file looks is a raw one, as another image says");
        CHECK_INT(c.findings.refusal_count, 0);
}

/* QEMU puts them behind the header: but they may lie anywhere in the first cluster. */
static void names_far_behind_the_header_are_found(void) {
        static unsigned char bytes[65536] = "QFI\xfb\0\0\0\3";
        CLEANUP(case_clear) Case c = case_new();

        bytes[14] = 40000 >> 8; /* the backing file's name */
        bytes[15] = 40000 & 255;
        bytes[19] = 4;
        memcpy(bytes + 40000, "base", 4);
        bytes[23] = 16;
        bytes[103] = 104;
        memcpy(bytes + 104, "none\0\0\x17\x70", 8); /* an extension of 6000 bytes that nobody knows */
        memcpy(bytes + 104 + 8 + 6000, "\xe2\x79\x2a\xca\0\0\0\3raw", 11);
        put_file(&c, "top", bytes, sizeof bytes);
        put_image(&c, "base", NULL, NULL);
        find_in(&c, "");
        CHECK_TEXT(layer_of(&c, "base")->location.format, "raw");
        CHECK_TEXT(layer_of(&c, "top")->location.member, "parent=512");
}

static void a_base_that_changed_later_is_noted(void) {
        struct timespec late[2] = { { .tv_sec = NOON + 100000 }, { .tv_sec = NOON + 100000 } };
        CLEANUP(case_clear) Case c = case_new();

        put_image(&c, "vm.qcow2", NULL, NULL);
        put_image(&c, "old.qcow2", "vm.qcow2", "qcow2");
        put_image(&c, "lost.qcow2", "/images/gone.qcow2", "qcow2");
        CHECK_INT(utimensat(c.directory.fd, "vm.qcow2", late, 0), 0);
        find_in(&c, "");
        CHECK(strstr(layer_of(&c, "old.qcow2")->note, "its backing file vm.qcow2 was changed later"));
        CHECK(strstr(layer_of(&c, "lost.qcow2")->problem, "gone.qcow2 is not there (if that is the VM's own disk"));
}

static void what_is_still_being_written_is_refused(void) {
        CLEANUP(case_clear) Case c = case_new();

        put_image(&c, "vda.qcow2.partial", NULL, NULL);
        find_in(&c, "");
        CHECK_INT(c.findings.layer_count, 0);
        CHECK_TEXT(c.findings.refusals[0].words,
                   "it is not whole: its name says that it is being written, or was given up");
}

static void loops_of_any_length_end(void) {
        for (unsigned length = 1; length < 6; length++) {
                CLEANUP(case_clear) Case c = case_new();
                unsigned problems = 0;

                for (unsigned i = 0; i < length; i++) {
                        char name[20], next[20];

                        snprintf(name, sizeof name, "%u", i);
                        snprintf(next, sizeof next, "%u", (i + 1) % length);
                        put_image(&c, name, next, "qcow2");
                }
                put_image(&c, "into", "0", "qcow2");
                find_in(&c, "");
                CHECK_INT(c.findings.layer_count, length + 1);
                for (size_t i = 0; i < c.findings.layer_count; i++)
                        problems += c.findings.layers[i].problem != NULL;
                CHECK_INT(problems, 1);
        }
}

static void a_name_says_what_its_tool_put_into_it(void) {
        static const struct {
                const char *name, *disk, *label, *checkpoint;
                time_t time;
                bool incremental;
        } names[] = {
                { "20240501103000.cp.disk.full.qcow2", "disk", "20240501103000.cp", "cp", 1714559400, false },
                { "20240501103000.cp.disk.incremental.qcow2", "disk", "20240501103000.cp", "cp", 1714559400, true },
                { "20240501103000.cp.disk.qcow2", NULL, NULL, NULL, 0, false },
                { "2024050110300.cp.disk.full.qcow2", NULL, NULL, NULL, 0, false },
                { "vda.qcow2.monday", "vda", "monday", "monday", 0, false },
                { "vda.img.1700000000", "vda", "1700000000", NULL, 1700000000, false },
                { "a.b.raw.x", "a.b", "x", "x", 0, false },
                { "vda.monday", NULL, NULL, NULL, 0, false },
                { "vda.qcow2", NULL, NULL, NULL, 0, false },
                { "vda.qcow2.", NULL, NULL, NULL, 0, false },
                { "FULL-1700000000-sda.qcow2", "sda", "1700000000", NULL, 1700000000, false },
                { "INC-1700000000", NULL, "1700000000", NULL, 1700000000, true },
                { "INC-170000000", NULL, NULL, NULL, 0, false },
                { "vda.2026-11-20T010203Z.qcow2", "vda", "2026-11-20T010203Z", NULL, 1795136523, false },
                { "vda.2026-11-20T010203Z-02.qcow2", "vda", "2026-11-20T010203Z-02", NULL, 1795136523, false },
                { "vda.2026-11-20T010203Z-2.qcow2", NULL, NULL, NULL, 0, false },
                { ".2026-11-20T010203Z.qcow2", NULL, NULL, NULL, 0, false },
                { "FULL-", NULL, NULL, NULL, 0, false },
                { ".", NULL, NULL, NULL, 0, false },
        };

        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                CLEANUP(image_name_clear) ImageName parsed = { 0 };

                CHECK_INT(image_name_parse(names[i].name, &parsed), 0);
                CHECK_TEXT(parsed.disk ?: "-", names[i].disk ?: "-");
                CHECK_TEXT(parsed.label ?: "-", names[i].label ?: "-");
                CHECK_TEXT(parsed.checkpoint ?: "-", names[i].checkpoint ?: "-");
                CHECK_INT(parsed.time.tv_sec, names[i].time);
                CHECK_INT(parsed.incremental, names[i].incremental);
        }
}

int main(void) {
        RUN(disks_that_are_named_alike_have_the_same_points);
        RUN(dates_are_of_the_point_and_not_of_the_disk);
        RUN(numbers_that_are_no_dates_are_of_the_disk);
        RUN(what_would_be_called_the_same_is_told_apart);
        RUN(an_incremental_push_backup_is_based_on_the_one_before_it);
        RUN(qmpbackups_names_tell_the_chain);
        RUN(a_name_of_a_backing_file_is_taken_as_qemu_takes_it);
        RUN(what_is_said_to_be_raw_is_raw_whatever_it_looks_like);
        RUN(names_far_behind_the_header_are_found);
        RUN(a_base_that_changed_later_is_noted);
        RUN(what_is_still_being_written_is_refused);
        RUN(loops_of_any_length_end);
        RUN(a_name_says_what_its_tool_put_into_it);
        return unit_result();
}
