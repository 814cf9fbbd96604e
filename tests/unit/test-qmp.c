#include "sources/source.h"

#include <errno.h>

#include "fake-qemu.h"
#include "temporary.h"

#define REPOSITORY "11111111-2222-4333-8444-555555555555"
#define VM_UUID "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
#define CHECKPOINT "virtbackupfs-111111112222-20260101T000000Z-00000000"

static const char *directory;
static char uri[300];

static SourceOwner owner(void) {
        snprintf(uri, sizeof uri, "qmp://%s/qmp.sock", directory);
        return (SourceOwner) { .source = uri, .vm = "vm", .vm_uuid = VM_UUID, .repository = REPOSITORY };
}

/* A capture's calls. Whether all went well. */
static bool capture_once(Source *source, Reason *reterr) {
        CLEANUP(source_vm_clear) SourceVm vm = { 0 };
        const bool incremental[2] = { false, false };
        const SourceJob job = { .checkpoint = CHECKPOINT, .incremental = incremental, .pause = true };
        struct timespec moment;
        int rc;

        rc = source_inspect(source, &vm, reterr);
        if (rc == 0) {
                CHECK_INT(vm.disk_count, 2);
                CHECK_TEXT(vm.disks[0].name, "vda");
                CHECK_TEXT(vm.disks[1].name, "vdb");
                rc = source_begin(source, &job, &moment, reterr);
        }
        if (rc == 0)
                rc = source_watch(source, reterr);
        if (rc == 0)
                rc = source_confirm(source, reterr);
        if (rc == 0)
                rc = source_end(source, reterr);
        if (rc == 0)
                rc = source_keep_checkpoints(source, NULL, 0, reterr);
        return rc == 0;
}

static int count_commands(FakeQemu *fake) {
        CLEANUP(source_freep) Source *source = NULL;
        SourceOwner who = owner();
        Reason reason;

        fake_misbehave(fake, FAKE_NONE, 0);
        CHECK_INT(source_open(&who, &source, &reason), 0);
        if (!capture_once(source, &reason)) {
                fprintf(stderr, "%s\n", reason.text);
                CHECK(false);
        }
        CHECK(fake_is_clean(fake));
        return fake_commands(fake);
}

static void whatever_goes_wrong_at_any_command_nothing_is_left(void) {
        FakeQemu fake;
        int commands;

        fake_start(&fake, directory);
        commands = count_commands(&fake);
        CHECK(commands > 30);
        for (FakeMischief mischief = FAKE_HANGS_UP_BEFORE; mischief < FAKE_MISCHIEFS; mischief++)
                for (int at = 1; at < commands; at++) {
                        CLEANUP(source_freep) Source *source = NULL, *next = NULL;
                        SourceOwner who = owner();
                        Reason reason = REASON_INIT;
                        bool good;

                        fake_misbehave(&fake, mischief, at);
                        CHECK_INT(source_open(&who, &source, &reason), 0);
                        good = capture_once(source, &reason);
                        CHECK(good || reason.text[0]);
                        if (mischief == FAKE_TALKS_OF_OTHER_THINGS && !good)
                                fprintf(stderr, "at command %d: %s\n", at, reason.text);
                        CHECK(good || mischief != FAKE_TALKS_OF_OTHER_THINGS);
                        source = source_free(source);
                        /* As the guardian does, or the next capture. */
                        CHECK_INT(source_open(&who, &next, &reason), 0);
                        fake_misbehave(&fake, FAKE_NONE, 0);
                        CHECK_INT(source_end_leftovers(next, &reason), 0);
                        if (!fake_is_clean(&fake))
                                fprintf(stderr, "mischief %d at command %d\n", mischief, at);
                        CHECK(fake_is_clean(&fake));
                        CHECK(capture_once(next, &reason));
                }
        fake_stop(&fake);
}

static void without_qemu_there_is_nothing_to_end(void) {
        CLEANUP(source_freep) Source *source = NULL;
        CLEANUP(source_vm_clear) SourceVm vm = { 0 };
        SourceOwner who = owner();
        Reason reason;

        unlink(uri + strlen("qmp://"));
        CHECK_INT(source_open(&who, &source, &reason), 0);
        CHECK_INT(source_inspect(source, &vm, &reason), -EHOSTDOWN);
        CHECK_SAYS(reason, "QEMU does not run");
        CHECK_INT(source_end_leftovers(source, &reason), 0);
        CHECK_INT(source_keep_checkpoints(source, NULL, 0, &reason), -EAGAIN);
        CHECK_SAYS(reason, "its bitmaps stay in the images until it runs again");
}

static void freezing_needs_an_agent(void) {
        CLEANUP(source_freep) Source *source = NULL;
        CLEANUP(source_vm_clear) SourceVm vm = { 0 };
        const SourceJob job = { .checkpoint = CHECKPOINT, .incremental = (bool[2]) { false }, .freeze = FREEZE_ALWAYS };
        struct timespec moment;
        SourceOwner who = owner();
        FakeQemu fake;
        Reason reason;

        fake_start(&fake, directory);
        CHECK_INT(source_open(&who, &source, &reason), 0);
        CHECK_INT(source_inspect(source, &vm, &reason), 0);
        CHECK_INT(source_begin(source, &job, &moment, &reason), -ENOTSUP);
        CHECK_SAYS(reason, "names no socket of a guest agent");
        source = source_free(source);
        CHECK(fake_is_clean(&fake));
        fake_stop(&fake);
}

static void a_server_of_somebody_else_is_left_alone(void) {
        CLEANUP(source_freep) Source *source = NULL;
        SourceOwner who = owner();
        FakeQemu fake;
        Reason reason;

        fake_start(&fake, directory);
        fake_set_server(&fake, true);
        CHECK_INT(source_open(&who, &source, &reason), 0);
        CHECK(!capture_once(source, &reason));
        CHECK_SAYS(reason, "cannot start an NBD server");
        CHECK(fake_has_server(&fake));
        source = source_free(source);
        fake_set_server(&fake, false);
        CHECK(fake_is_clean(&fake));
        fake_stop(&fake);
}

int main(void) {
        WITH_DIRECTORY(temporary);

        directory = temporary.path;
        setenv("XDG_RUNTIME_DIR", directory, 1);
        setenv("XDG_CACHE_HOME", directory, 1);
        RUN(whatever_goes_wrong_at_any_command_nothing_is_left);
        RUN(without_qemu_there_is_nothing_to_end);
        RUN(freezing_needs_an_agent);
        RUN(a_server_of_somebody_else_is_left_alone);
        return unit_result();
}
