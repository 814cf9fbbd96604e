#include "repository/capture-state.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "repository/capture-lock.h"
#include "repository-fixture.h"
#include "util/file.h"

static void check_text(Fixture *f, const char *expected) {
        CLEANUP(capture_state_clear) CaptureState state = { 0 };
        CLEANUP(freep) char *text = NULL;
        size_t length;

        CHECK_INT(capture_state_read(f->vm, &state, NULL), 0);
        CHECK_INT(capture_state_format(&state, &text, &length), 0);
        CHECK_INT(length, strlen(text));
        CHECK_TEXT(text, expected);
}

static CaptureState running(void) {
        CaptureState state = { .phase = CAPTURE_RUNNING, .started = { 1795136523, 0 }, .rate = 1000, .disk_count = 2 };

        state.kind = strdup("incremental");
        state.disks = calloc(2, sizeof *state.disks);
        state.disks[0] = (CaptureDiskProgress) { strdup("vda"), 10, 20 };
        state.disks[1] = (CaptureDiskProgress) { strdup("vdb"), 0, 30 };
        return state;
}

#define RUNNING_TEXT "kind: incremental\nstarted: 2026-11-20T01:02:03Z\ndisk: vda 10 20\ndisk: vdb 0 30\nrate: 1000\n"

static void a_fresh_vm_is_idle(void) {
        WITH_FIXTURE(f);

        check_text(&f, "state: idle\n");
}

static void what_was_written_is_shown(void) {
        WITH_FIXTURE(f);
        CLEANUP(capture_state_clear) CaptureState state = running();
        CLEANUP(close_fd) int lock = -1;

        CHECK_INT(capture_lock_take(f.vm, &lock, NULL), 0);
        CHECK_INT(capture_state_write(f.vm, &state, NULL), 0);
        /* The lock belongs to a descriptor: asked by another one, it shows within the same process too. */
        check_text(&f, "state: running\n" RUNNING_TEXT);
        state.waits = strdup("the disk is full");
        CHECK_INT(capture_state_write(f.vm, &state, NULL), 0);
        check_text(&f, "state: running\n" RUNNING_TEXT "waits: the disk is full\n");
        state.phase = CAPTURE_IDLE;
        state.last = strdup("2026-11-20T010203Z");
        state.finished = (struct timespec) { 1795136524, 0 };
        CHECK_INT(capture_state_write(f.vm, &state, NULL), 0);
        check_text(&f, "state: idle\n" RUNNING_TEXT "last: 2026-11-20T010203Z\nfinished: 2026-11-20T01:02:04Z\n");
        state.phase = CAPTURE_FAILED;
        state.error = strdup("the guest \xff is gone");
        CHECK_INT(capture_state_write(f.vm, &state, NULL), 0);
        check_text(&f, "state: failed\n" RUNNING_TEXT "error: the guest ? is gone\nfinished: 2026-11-20T01:02:04Z\n");
}

static void a_damaged_state_reads_as_failed(void) {
        WITH_FIXTURE(f);
        CLEANUP(capture_state_clear) CaptureState state = { 0 };

        CHECK_INT(create_file(vm_fd(f.vm), "state.json", "{}", 2, NULL), 0);
        CHECK_INT(capture_state_read(f.vm, &state, NULL), 0);
        CHECK_INT(state.phase, CAPTURE_FAILED);
        CHECK(strstr(state.error, "state.json is damaged"));
}

static void the_lock_is_taken_once(void) {
        WITH_FIXTURE(f);
        CLEANUP(close_fd) int lock = -1;
        int second = -1;
        Reason reason = REASON_INIT;

        CHECK_INT(capture_lock_is_held(f.vm), 0);
        CHECK_INT(capture_lock_take(f.vm, &lock, &reason), 0);
        CHECK_INT(capture_lock_take(f.vm, &second, &reason), -EBUSY);
        CHECK_SAYS(reason, "vm1: a capture of this VM is running");
        CHECK_INT(capture_lock_is_held(f.vm), 1);
        close(STEAL_FD(lock));
        CHECK_INT(capture_lock_is_held(f.vm), 0);
}

static void a_vm_is_not_added_again_under_a_capture(void) {
        WITH_FIXTURE(f);
        CLEANUP(close_fd) int lock = -1;
        Reason reason = REASON_INIT;

        CHECK_INT(vm_forget(f.vm, false, &reason), 0);
        CHECK_INT(capture_lock_take(f.vm, &lock, &reason), 0);
        CHECK_INT(vm_add(f.repository, "vm1", FIXTURE_UUID, "x", NULL, &reason), -EBUSY);
}

/* A child that says so over a pipe once it has done what there is to do, and then waits to be killed. */
static pid_t start_holder(Fixture *f, int lock) {
        int ready[2];
        pid_t child;
        char byte;

        CHECK_INT(pipe(ready), 0);
        child = fork();
        CHECK(child >= 0);
        if (child == 0) {
                CaptureState state = running();

                if (lock < 0 && capture_lock_take(f->vm, &lock, NULL) < 0)
                        _exit(1);
                if (capture_state_write(f->vm, &state, NULL) < 0 || write(ready[1], "", 1) != 1)
                        _exit(1);
                for (;;)
                        pause();
        }
        close(ready[1]);
        CHECK_INT(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        return child;
}

static void kill_holder(pid_t child) {
        CHECK_INT(kill(child, SIGKILL), 0);
        CHECK_INT(waitpid(child, NULL, 0), child);
}

static void a_killed_capture_reads_as_failed(void) {
        WITH_FIXTURE(f);
        pid_t child = start_holder(&f, -1);
        CLEANUP(capture_state_clear) CaptureState state = { 0 };

        CHECK_INT(capture_lock_is_held(f.vm), 1);
        check_text(&f, "state: running\n" RUNNING_TEXT);
        kill_holder(child);
        CHECK_INT(capture_lock_is_held(f.vm), 0);
        CHECK_INT(capture_state_read(f.vm, &state, NULL), 0);
        CHECK_INT(state.phase, CAPTURE_FAILED);
        CHECK_TEXT(state.error, "the capture process was killed");
}

static void the_lock_lasts_as_long_as_any_copy_of_it(void) {
        WITH_FIXTURE(f);
        int lock = -1;
        pid_t child;

        CHECK_INT(capture_lock_take(f.vm, &lock, NULL), 0);
        child = start_holder(&f, lock);
        close(lock);
        CHECK_INT(capture_lock_is_held(f.vm), 1);
        kill_holder(child);
        CHECK_INT(capture_lock_is_held(f.vm), 0);
}

int main(void) {
        RUN(a_fresh_vm_is_idle);
        RUN(what_was_written_is_shown);
        RUN(a_damaged_state_reads_as_failed);
        RUN(the_lock_is_taken_once);
        RUN(a_vm_is_not_added_again_under_a_capture);
        RUN(a_killed_capture_reads_as_failed);
        RUN(the_lock_lasts_as_long_as_any_copy_of_it);
        return unit_result();
}
