#include "machine/recovery-note.h"

#include <errno.h>

#include "temporary.h"
#include "unit.h"
#include "util/file.h"

static void fill(RecoveryNote *note) {
        *note = (RecoveryNote) {
                .name = strdup("vm \"1\""), .uuid = strdup("11111111-2222-3333-4444-555555555555"),
                .uri = strdup("qemu:///session"), .repository = strdup("/backup"), .vm = strdup("vm1"),
                .point = strdup("2026-11-20T010203Z"), .started = true, .disks = calloc(1, sizeof *note->disks),
                .disk_count = 1,
        };
        note->disks[0] = (RecoveryDisk) {
                strdup("vda"), strdup("/d/vm1-vda.qcow2"), strdup("/m/vda.raw"), UINT64_C(1) << 41, true,
        };
        CHECK_INT(strings_add(&note->made, "/d/vm1-nvram"), 0);
}

static void note_that_was_written_is_read(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(recovery_note_clear) RecoveryNote note, again = { 0 };

        fill(&note);
        CHECK_INT(recovery_note_write(directory.fd, &note, NULL), 0);
        CHECK_INT(recovery_note_read(directory.fd, &again, NULL), 0);
        CHECK_TEXT(again.name, note.name);
        CHECK_TEXT(again.uuid, note.uuid);
        CHECK_TEXT(again.uri, note.uri);
        CHECK_TEXT(again.repository, note.repository);
        CHECK_TEXT(again.vm, note.vm);
        CHECK_TEXT(again.point, note.point);
        CHECK(again.started && !again.paused && again.disks[0].settled);
        CHECK_INT(again.disk_count, 1);
        CHECK_TEXT(again.disks[0].path, "/d/vm1-vda.qcow2");
        CHECK_TEXT(again.disks[0].backing, "/m/vda.raw");
        CHECK_INT(again.disks[0].size, UINT64_C(1) << 41);
        CHECK_INT(again.made.count, 1);
        CHECK_TEXT(again.made.items[0], "/d/vm1-nvram");
}

static void note_of_something_else_is_refused(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(recovery_note_clear) RecoveryNote note = { 0 };
        const char text[] = "{\"format\": \"virtbackupfs recovery\"}";
        Reason reason = REASON_INIT;

        CHECK_INT(recovery_note_read(directory.fd, &note, &reason), -ENOENT);
        CHECK_INT(create_file(directory.fd, "recovery.json", text, strlen(text), NULL), 0);
        CHECK_INT(recovery_note_read(directory.fd, &note, &reason), -EBADMSG);
}

static void text_that_is_not_utf_8_is_refused(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(recovery_note_clear) RecoveryNote note;
        Reason reason = REASON_INIT;

        fill(&note);
        note.disks[0].path[1] = (char) 0xff;
        CHECK_INT(recovery_note_write(directory.fd, &note, &reason), -EINVAL);
        CHECK_SAYS(reason, "UTF-8");
}

static void one_at_a_time_works_on_it(void) {
        WITH_DIRECTORY(directory);
        Reason reason = REASON_INIT;
        int first, second;

        CHECK_INT(recovery_note_lock(directory.fd, &first, NULL), 0);
        CHECK_INT(recovery_note_lock(directory.fd, &second, &reason), -EBUSY);
        CHECK_SAYS(reason, "another process");
        close(first);
        CHECK_INT(recovery_note_lock(directory.fd, &second, NULL), 0);
        close(second);
}

int main(void) {
        RUN(note_that_was_written_is_read);
        RUN(note_of_something_else_is_refused);
        RUN(text_that_is_not_utf_8_is_refused);
        RUN(one_at_a_time_works_on_it);
        return unit_result();
}
