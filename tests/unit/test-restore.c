/* Disks restored to files are byte for byte what they were, also from where another restore stopped. */
#include "restore/restore.h"

#include <errno.h>
#include <sys/stat.h>

#include "chain-model.h"
#include "random.h"
#include "restore/journal.h"
#include "util/io.h"

#define BLOCK 4096u
#define MIB (1u << 20)

static char target[128], partial[140];

static void name_targets(const Fixture *f) {
        snprintf(target, sizeof target, "%s/target.raw", f->directory.path);
        snprintf(partial, sizeof partial, "%s.partial", target);
}

/* A full point and an incremental one; the disk may grow or shrink in between. */
static PointModel make_points(Fixture *f, uint64_t size, bool unreadable) {
        PointModel before = { 0 }, point = { 0 };

        for (unsigned index = 0; index < 2; index++) {
                uint64_t size_now = index == 0 ? max_u64(size, 2 * BLOCK) + random_below(3 * BLOCK) - BLOCK : size;
                LayerModel layer = layer_model_new(size_now, BLOCK, random_below(2) ? "lz4" : "none");

                for (uint64_t block = 0; block < layer.count; block++) {
                        uint64_t chance = random_below(10);
                        ModelState state = chance < 5                  ? MODEL_DATA
                                           : chance < 8 || !unreadable ? MODEL_ZERO
                                                                       : MODEL_UNREADABLE;

                        if (index > 0 && block * BLOCK < before.size - min_u64(before.size, BLOCK) && random_below(3) > 0)
                                state = MODEL_ABSENT;
                        layer.states[block] = (uint8_t) state;
                        if (state == MODEL_DATA)
                                random_bytes(layer.bytes + block * BLOCK, layer_model_length(&layer, block));
                }
                point = point_model_new(index, size_now, index > 0 ? &before : NULL);
                point_model_apply(&point, &layer, index);
                write_point(f, point.name, index > 0 ? before.name : NULL, index + 1,
                            index > 0 ? POINT_INCREMENTAL : POINT_FULL,
                            size_now, &layer, 1);
                layer_model_clear(&layer);
                if (index == 0)
                        before = point;
        }
        point_model_clear(&before);
        return point;
}

static uint64_t count_lost(const PointModel *point) {
        uint64_t lost = 0;

        for (uint64_t at = 0; at < point->size; at++)
                lost += point->kinds[at] == BYTE_LOST;
        return lost;
}

static void check_target(const PointModel *point) {
        CLEANUP(close_fd) int fd = open(target, O_RDONLY | O_CLOEXEC);
        CLEANUP(freep) uint8_t *bytes = malloc(point->size + 1);
        struct stat st;

        CHECK(fd >= 0 && bytes && fstat(fd, &st) == 0);
        CHECK_INT(st.st_size, point->size);
        CHECK_INT(pread_whole(fd, bytes, point->size, 0), 0);
        CHECK(memcmp(bytes, point->values, point->size) == 0);
        CHECK(access(partial, F_OK) < 0);
}

static void disks_of_any_size_and_state_come_back(void) {
        for (unsigned i = 0; i < 16; i++) {
                bool unreadable = i % 3 == 0;
                Fixture f = fixture();
                PointModel point = make_points(&f, BLOCK + random_below(i % 2 ? 4 * MIB : 40000), unreadable);
                RestoreOptions options = { .verify = i % 2, .threads = i % 5 };
                uint64_t skipped = 0, lost = count_lost(&point);
                Reason reason = REASON_INIT;

                name_targets(&f);
                if (lost > 0) {
                        CHECK_INT(restore_disk(f.vm, point.name, "vda", target, &options, &skipped, &reason), -EIO);
                        CHECK_SAYS(reason, "cannot be read");
                        CHECK(access(target, F_OK) < 0 && access(partial, F_OK) < 0);
                        options.skip_unreadable = true;
                }
                CHECK_INT(restore_disk(f.vm, point.name, "vda", target, &options, &skipped, &reason), 0);
                CHECK_INT(skipped, lost);
                check_target(&point);
                CHECK_INT(restore_disk(f.vm, point.name, "vda", target, &options, &skipped, &reason), -EEXIST);
                options.replace = true;
                CHECK_INT(restore_disk(f.vm, point.name, "vda", target, &options, &skipped, &reason), 0);
                check_target(&point);
                point_model_clear(&point);
                fixture_clear(&f);
        }
}

/* What an interrupted restore of the point leaves: bytes that are not the disk's up to a mark, which the journal tells. */
static void leave_unfinished(const Fixture *f, const PointModel *point, uint64_t mark) {
        const TargetRequest request = { .name = target, .size = point->size };
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        CLEANUP(freep) char *what = NULL;
        Reason reason = REASON_INIT;
        void *bytes = aligned_alloc(BLOCK, mark);
        JournalState state;
        DiskTarget *made;
        Journal journal;

        CHECK_INT(manifest_read(f->vm, point->name, &manifest, &reason), 0);
        CHECK(bytes && asprintf(&what, "%s/%s/vda", manifest->vm_uuid, manifest->capture) > 0);
        memset(bytes, 'x', mark);
        CHECK_INT(disk_target_open(&request, &made, &reason), 0);
        CHECK_INT(journal_open(made, what, &journal, &state, &reason), 0);
        CHECK_INT(state, JOURNAL_NONE);
        CHECK_INT(journal_begin(&journal, &reason), 0);
        CHECK_INT(disk_target_write(made, bytes, mark - JOURNAL_HEAD, JOURNAL_HEAD, &reason), 0);
        CHECK_INT(journal_note(&journal, mark, 0, &reason), 0);
        disk_target_close(made, true);
        free(bytes);
}

static char last_line[REASON_MAX];

static void hear(void *context, const char *line) {
        (void) context;
        snprintf(last_line, sizeof last_line, "%s", line);
}

static void a_restore_goes_on_at_the_mark(void) {
        RestoreOptions options = { .tell = hear };
        Fixture f = fixture();
        PointModel point = make_points(&f, 3 * MIB + 77, false);
        Reason reason = REASON_INIT;
        uint64_t skipped = 0;

        name_targets(&f);
        leave_unfinished(&f, &point, 2 * MIB);
        CHECK_INT(restore_disk(f.vm, point.name, "vda", target, &options, &skipped, &reason), 0);
        CHECK(strstr(last_line, "goes on at 2 of 3 MiB"));
        memset(point.values + MIB, 'x', MIB); /* as it was found */
        check_target(&point);
        point_model_clear(&point);
        fixture_clear(&f);
}

static void what_differs_from_what_was_written_is_found(void) {
        RestoreOptions options = { .verify = true };
        Fixture f = fixture();
        PointModel point = make_points(&f, 3 * MIB + 77, false);
        Reason reason = REASON_INIT;
        uint64_t skipped = 0;

        name_targets(&f);
        leave_unfinished(&f, &point, 2 * MIB);
        CHECK_INT(restore_disk(f.vm, point.name, "vda", target, &options, &skipped, &reason), -EIO);
        CHECK_SAYS(reason, "reads back differently from what was written, first at ");
        CHECK(access(target, F_OK) < 0 && access(partial, F_OK) < 0);
        CHECK_INT(restore_disk(f.vm, point.name, "vda", target, &options, &skipped, &reason), 0);
        check_target(&point);
        point_model_clear(&point);
        fixture_clear(&f);
}

static void a_journal_survives_the_loss_of_one_of_its_places(void) {
        const TargetRequest request = { .name = target, .size = 4 * MIB };
        Fixture f = fixture();
        Reason reason = REASON_INIT;
        JournalState state;
        DiskTarget *made;
        Journal journal;

        name_targets(&f);
        CHECK_INT(disk_target_open(&request, &made, &reason), 0);
        CHECK_INT(journal_open(made, "a", &journal, &state, &reason), 0);
        CHECK_INT(journal_begin(&journal, &reason), 0);
        CHECK_INT(journal_note(&journal, 2 * MIB, 10, &reason), 0);
        CHECK_INT(journal_note(&journal, 3 * MIB, 20, &reason), 0);
        disk_target_close(made, true);

        CHECK_INT(disk_target_open(&request, &made, &reason), 0);
        CHECK_INT(journal_open(made, "a", &journal, &state, &reason), 0);
        CHECK_INT(state, JOURNAL_FOUND);
        CHECK_INT(journal.done, 3 * MIB);
        CHECK_INT(journal.skipped, 20);
        CHECK_INT(journal_open(made, "b", &journal, &state, &reason), 0);
        CHECK_INT(state, JOURNAL_OTHER);
        CHECK_INT(journal.done, JOURNAL_HEAD);
        CHECK_INT(disk_target_zero(made, made->grain, 0, &reason), 0);
        CHECK_INT(journal_open(made, "a", &journal, &state, &reason), 0);
        CHECK_INT(state, JOURNAL_FOUND);
        CHECK_INT(journal.done, 2 * MIB);
        CHECK_INT(disk_target_clear(made, &reason), 0);
        CHECK_INT(journal_open(made, "a", &journal, &state, &reason), 0);
        CHECK_INT(state, JOURNAL_NONE);
        disk_target_close(made, false);
        CHECK(access(partial, F_OK) < 0);
        fixture_clear(&f);
}

static void names_that_no_target_can_have_are_refused(void) {
        static const struct {
                const char *name, *format, *words;
                int rc;
        } cases[] = {
                { "", NULL, "has a name", -EINVAL },
                { "/", NULL, "is a directory", -EISDIR },
                { "/nowhere/at/all", NULL, "cannot reach the directory", -ENOENT },
                { "/dev/null", NULL, "neither a file nor a block device", -EINVAL },
                { "/tmp/x", "vmdk", "not as vmdk", -EINVAL },
                { "nbd://localhost/x", "qcow2", "is written raw", -EINVAL },
                { "nbd+unix:///x?socket=/s&bitmap=b", NULL, "parameters of what is captured", -EINVAL },
                { "https://localhost/images/t", "qcow2", "is written raw", -EINVAL },
                { "https://localhost/elsewhere/t", NULL, "an image transfer is written", -EINVAL },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                const TargetRequest request = { .name = cases[i].name, .format = cases[i].format, .size = MIB };
                Reason reason = REASON_INIT;
                DiskTarget *made;

                CHECK_INT(disk_target_open(&request, &made, &reason), cases[i].rc);
                CHECK_SAYS(reason, cases[i].words);
        }
}

static void the_format_is_that_of_the_name_where_none_is_said(void) {
        Reason reason = REASON_INIT;
        const char *format;

        CHECK_INT(target_format("a.qcow2", NULL, &format, &reason), 0);
        CHECK_TEXT(format, "qcow2");
        CHECK_INT(target_format(".qcow2", NULL, &format, &reason), 0);
        CHECK_TEXT(format, "raw");
        CHECK_INT(target_format("a.qcow2", "raw", &format, &reason), 0);
        CHECK_TEXT(format, "raw");
        CHECK_INT(target_format("a.img", NULL, &format, &reason), 0);
        CHECK_TEXT(format, "raw");
}

int main(void) {
        random_seed(3);
        RUN(disks_of_any_size_and_state_come_back);
        RUN(a_restore_goes_on_at_the_mark);
        RUN(what_differs_from_what_was_written_is_found);
        RUN(a_journal_survives_the_loss_of_one_of_its_places);
        RUN(names_that_no_target_can_have_are_refused);
        RUN(the_format_is_that_of_the_name_where_none_is_said);
        return unit_result();
}
