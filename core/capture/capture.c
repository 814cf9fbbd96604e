#include "capture/capture.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "capture/capture-private.h"
#include "capture/copy.h"
#include "repository/capture-lock.h"

void capture_warn(const Run *run, const char *format, ...) {
        char line[2 * REASON_MAX];
        va_list args;

        if (!run->options->warn)
                return;
        va_start(args, format);
        vsnprintf(line, sizeof line, format, args);
        va_end(args);
        run->options->warn(run->options->context, line);
}

/* Keeps it as soon as the repository can be written to, as far as there is patience. */
static int keep_file(Run *run, const char *name, const void *content, size_t length, Reason *reterr) {
        Reason reason = REASON_INIT;
        unsigned times = 0;
        int rc;

        do
                rc = draft_keep_file(&run->draft, name, content, length, &reason);
        while (rc < 0 && target_stuck(&run->target, times++, rc, reason.text) == 0);
        if (rc < 0 && reterr)
                *reterr = reason;
        target_went_on(&run->target);
        return rc;
}

static int keep_files(Run *run, const char *definition, Reason *reterr) {
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < run->source_vm.file_count; i++) {
                SourceFile *file = &run->source_vm.files[i];

                rc = keep_file(run, file->name, file->content, file->length, reterr);
                free(STEAL_PTR(file->content)); /* it may be large */
        }
        if (rc == 0 && definition)
                rc = keep_file(run, BASE_CHECKPOINT_FILE, definition, strlen(definition), reterr);
        return rc;
}

/* Whether so little changed that no point is wanted. What is captured in full always is; how much changed of what is
 * compared is known once it was copied. */
static bool is_below_threshold(const Run *run, bool copied, uint64_t *ret_changed) {
        uint64_t changed = 0;

        if (run->options->threshold == 0 || base_disk_count(&run->base) < run->base.disk_count)
                return false;
        for (size_t i = 0; i < run->base.disk_count; i++) {
                if (run->base.disks[i].compared && !copied)
                        return false;
                changed += run->base.disks[i].changed;
        }
        *ret_changed = changed;
        return changed < run->options->threshold;
}

/* 1 where less changed than is worth a point: reterr says how much. */
static int copy_disks(Run *run, Reason *reterr) {
        CLEANUP(copy_clear) Copy copy = {
                .vm = run->vm,
                .source = run->source,
                .source_vm = &run->source_vm,
                .base = &run->base,
                .stop = &run->stop,
                .reporter = run->reporter,
                .target = &run->target,
                .options = run->options,
        };
        uint64_t changed;
        bool below = false;
        int rc;

        rc = copy_survey(&copy, reterr);
        if (rc == 0)
                rc = capture_settle_kind(run, reterr);
        if (rc < 0)
                return rc;
        below = is_below_threshold(run, false, &changed);
        if (run->options->threshold == 0)
                capture_tell_ways(run);
        if (!below) {
                rc = copy_run(&copy, run->draft.manifest, reterr);
                if (rc < 0)
                        return rc;
                below = is_below_threshold(run, true, &changed);
        }
        if (!below && run->options->threshold > 0)
                capture_tell_ways(run);
        if (below)
                return fail(reterr, 1, "%s: nothing was captured: %llu bytes changed since %s, less than %llu",
                          vm_name(run->vm), (unsigned long long) changed, run->base.manifest->name,
                          (unsigned long long) run->options->threshold);
        return 0;
}

/* 1 as copy_disks() has it. */
static int take_point(Run *run, Reason *reterr) {
        CLEANUP(freep) char *checkpoint = NULL, *definition = NULL;
        Reason reason = REASON_INIT;
        struct timespec moment;
        unsigned times = 0;
        int rc;

        rc = capture_begin(run, &moment, reterr);
        if (rc < 0)
                return rc;
        rc = source_checkpoint(run->source, &checkpoint, &definition, reterr);
        if (rc < 0)
                return rc;
        free(run->checkpoint);
        run->checkpoint = STEAL_PTR(checkpoint);
        watcher_watch(run->watcher, run->source);
        rc = draft_begin(&run->draft, run->newest, moment, run->checkpoint, reterr);
        if (rc < 0)
                return rc;
        rc = keep_files(run, definition, reterr);
        if (rc < 0)
                return rc;
        rc = copy_disks(run, reterr);
        if (rc != 0)
                return rc;
        if (stop_requested(&run->stop))
                return stop_cause(&run->stop, -ECANCELED, reterr);
        watcher_lock_source(run->watcher);
        rc = source_confirm(run->source, reterr);
        watcher_unlock_source(run->watcher);
        if (rc < 0)
                return rc;
        do
                rc = draft_commit(&run->draft, run->guardian, &reason);
        while (rc < 0 && target_stuck(&run->target, times++, rc, reason.text) == 0);
        if (rc < 0 && reterr)
                *reterr = reason;
        if (rc > 0)
                capture_warn(run, "%s/%s: %s", vm_name(run->vm), run->draft.manifest->name, reason.text);
        return rc < 0 ? rc : 0;
}

static int run_capture(Run *run, int lock_fd, Reason *reterr) {
        const CaptureOptions *options = run->options;
        Reason reason = REASON_INIT;
        int rc;

        rc = reporter_start(run->reporter, &reason);
        target_begin(&run->target, run->reporter, vm_fd(run->vm));
        if (rc == 0)
                rc = guardian_start(options->guardian_argv, options->source, options->scratch_directory, lock_fd,
                                    &run->guardian, &reason);
        if (rc == 0)
                rc = watcher_start(run->guardian, options->cancel, &run->stop, &run->watcher, &reason);
        if (rc == 0)
                rc = take_point(run, &reason);
        if (rc < 0)
                stop_because(&run->stop, rc, &reason);
        if (options->ending)
                options->ending(options->context);

        run->watcher = watcher_free(run->watcher);
        if (rc < 0)
                rc = stop_cause(&run->stop, rc, &reason);
        stop_let_clean_up(&run->stop);
        if (rc == 0)
                capture_end_well(run);
        else if (rc > 0)
                capture_end_without_point(run);
        else
                capture_end_badly(run, rc, &reason);
        run->source = source_free(run->source);
        run->guardian = run->job_stays ? guardian_hand_over(run->guardian) : guardian_dismiss(run->guardian);
        if (rc != 0 && reterr)
                *reterr = reason;
        return rc;
}

static void run_clear(Run *run) {
        source_free(run->source);
        source_vm_clear(&run->source_vm);
        base_clear(&run->base);
        free(run->checkpoint);
        draft_clear(&run->draft);
        target_end(&run->target);
        reporter_free(run->reporter);
        stop_destroy(&run->stop);
}

int capture_run(Vm *vm, const CaptureOptions *options, Manifest **ret, Reason *reterr) {
        CLEANUP(close_fd) int lock_fd = -1;
        CLEANUP(run_clear) Run run = { .vm = vm, .options = options, .draft = { .vm = vm } };
        int rc;

        stop_init(&run.stop);
        target_init(&run.target, vm, options, &run.stop);
        if (vm_damage(vm))
                return fail(reterr, -EROFS, "%s cannot capture: %s", vm_name(vm), vm_damage(vm));
        if (!vm_source(vm))
                return fail(reterr, -EROFS, "%s is not registered: it has no source; add it again", vm_name(vm));
        if (!vm_is_captured(vm))
                return fail(reterr, -EROFS, "%s cannot capture: its points are what another tool stores in %s", vm_name(vm),
                            vm_source(vm));
        rc = capture_lock_take(vm, &lock_fd, reterr);
        if (rc < 0)
                return rc;
        rc = reporter_new(vm, options, &run.reporter, reterr);
        if (rc < 0)
                return rc;
        if (options->accepted)
                options->accepted(options->context);
        rc = run_capture(&run, lock_fd, reterr);
        if (rc != 0)
                return rc;
        *ret = STEAL_PTR(run.draft.manifest);
        return 0;
}
