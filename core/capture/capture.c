#include "capture/capture.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "capture/base.h"
#include "capture/copy.h"
#include "capture/draft.h"
#include "capture/guardian.h"
#include "capture/leftovers.h"
#include "capture/reporter.h"
#include "capture/stop.h"
#include "capture/target.h"
#include "capture/watcher.h"
#include "repository/capture-lock.h"

/* One capture, from the lock on. */
typedef struct Run {
        Vm *vm;
        const CaptureOptions *options;
        Stop stop;
        Reporter *reporter;
        Guardian *guardian;
        Watcher *watcher;
        Source *source;
        SourceVm source_vm;
        char newest[POINT_NAME_MAX]; /* of the points before; "" where there is none */
        Base base;
        char *checkpoint;            /* the new one's name; set once a job may be there */
        bool began;                  /* the job is there for sure */
        Draft draft;
        Target target;               /* begun once the state can be told */
        bool job_stays;              /* it could not be ended */
        bool over;                   /* no more to be said about what is captured */
} Run;

const char *capture_wish_name(CaptureWish wish) {
        switch (wish) {
        case CAPTURE_FULL: return "full";
        case CAPTURE_INCREMENTAL: return "incremental";
        case CAPTURE_DIFFERENTIAL: return "differential";
        case CAPTURE_AUTO: break;
        }
        return "auto";
}

static void warn(const Run *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void warn(const Run *run, const char *format, ...) {
        char line[2 * REASON_MAX];
        va_list args;

        if (!run->options->warn)
                return;
        va_start(args, format);
        vsnprintf(line, sizeof line, format, args);
        va_end(args);
        run->options->warn(run->options->context, line);
}

static void warn_from_source(void *context, const char *line) {
        const Run *run = context;

        if (!run->over)
                warn(run, "%s: %s", vm_name(run->vm), line);
}

/* What names files must be names of files; and a disk or file must not be there twice. */
static int check_inspection(const Run *run, Reason *reterr) {
        const SourceVm *vm = &run->source_vm;

        if (strcasecmp(vm->uuid, vm_uuid(run->vm)) != 0)
                return fail(reterr, -ESTALE, "%s is another VM now: its UUID is %s, not %s", vm_name(run->vm), vm->uuid,
                            vm_uuid(run->vm));
        if (vm->disk_count == 0)
                return fail(reterr, -ENXIO, "%s has no disk that can be captured", vm_name(run->vm));
        for (size_t i = 0; i < vm->disk_count; i++) {
                if (!vm_name_is_valid(vm->disks[i].name))
                        return fail(reterr, -EPROTO, "the disk's name \"%s\" cannot be used", vm->disks[i].name);
                for (size_t j = 0; j < i; j++)
                        if (strcmp(vm->disks[i].name, vm->disks[j].name) == 0)
                                return fail(reterr, -EPROTO, "disk %s is there twice", vm->disks[i].name);
        }
        for (size_t i = 0; i < vm->file_count; i++)
                if (!vm_name_is_valid(vm->files[i].name))
                        return fail(reterr, -EPROTO, "the file's name \"%s\" cannot be used", vm->files[i].name);
        return 0;
}

static int open_source(Run *run, Reason *reterr) {
        SourceOwner owner = {
                .source = run->options->source ?: vm_source(run->vm),
                .include = vm_include(run->vm),
                .exclude = vm_exclude(run->vm),
                .vm = vm_name(run->vm),
                .vm_uuid = vm_uuid(run->vm),
                .repository = repository_uuid(vm_repository(run->vm)),
                .scratch_directory = run->options->scratch_directory,
                .cancel = &run->stop.flag,
                .warn = warn_from_source,
                .context = run,
        };
        int rc;

        rc = source_open(&owner, &run->source, reterr);
        if (rc < 0)
                return rc;
        rc = source_end_leftovers(run->source, reterr);
        if (rc < 0)
                return rc;
        rc = leftovers_remove_data(run->vm, reterr);
        if (rc < 0)
                return rc;
        rc = source_inspect(run->source, &run->source_vm, reterr);
        if (rc < 0)
                return rc;
        rc = check_inspection(run, reterr);
        if (rc < 0)
                return rc;
        return reporter_set_disks(run->reporter, &run->source_vm) < 0 ? fail_oom(reterr) : 0;
}

static int find_newest(Run *run, Reason *reterr) {
        CLEANUP(strings_free) Strings points = { 0 };
        int rc;

        rc = vm_list_points(run->vm, &points, reterr);
        if (rc < 0)
                return rc;
        if (points.count > 0)
                snprintf(run->newest, sizeof run->newest, "%s", points.items[points.count - 1]);
        return 0;
}

/* Nothing can be incremental, for this reason: what that means depends on what is wanted. */
static int fall_back_to_full(Run *run, const Reason *why, Reason *reterr) {
        if (run->options->wish == CAPTURE_INCREMENTAL)
                return fail(reterr, -ESTALE, "cannot be incremental: %.*s", REASON_MAX - 64, why->text);
        if (run->options->wish != CAPTURE_FULL)
                warn(run, "%s: captured in full: %s", vm_name(run->vm), why->text);
        return 0;
}

/* Who asks for an incremental point does not want to have all read, which is what comparing takes. */
static int require_bitmap(const Run *run, Reason *reterr) {
        const Base *base = &run->base;

        if (run->options->wish != CAPTURE_INCREMENTAL || !base->manifest || base_bitmap_count(base) > 0)
                return 0;
        return fail(reterr, -ESTALE, "cannot be incremental: %s: %.*s", run->source_vm.disks[0].name, REASON_MAX - 128,
                    base->disks[0].why.text);
}

static int choose_base(Run *run, Reason *reterr) {
        bool differential = run->options->wish == CAPTURE_DIFFERENTIAL;
        Reason asked;
        int rc;

        rc = base_choose(run->vm, run->newest[0] ? run->newest : NULL, differential, &run->source_vm, &run->base, reterr);
        if (rc < 0)
                return rc;
        if (run->options->wish == CAPTURE_FULL) {
                fail(&asked, 0, "as asked for");
                base_give_up(&run->base, &asked);
        }
        return run->base.manifest ? require_bitmap(run, reterr) : fall_back_to_full(run, &run->base.why, reterr);
}

/* "virtbackupfs-<repository>-20261120T010203Z-9f3c21aa": a person sees whose it is, and it is never used again. */
static int name_checkpoint(Run *run, Reason *reterr) {
        const char *uuid = repository_uuid(vm_repository(run->vm));
        char repository[13], when[32], random[9];
        time_t now = time(NULL);
        struct tm tm;
        size_t digits = 0;
        int rc;

        for (; *uuid && digits < sizeof repository - 1; uuid++)
                if (*uuid != '-')
                        repository[digits++] = *uuid;
        repository[digits] = 0;
        if (!gmtime_r(&now, &tm) || strftime(when, sizeof when, "%Y%m%dT%H%M%SZ", &tm) == 0)
                return fail(reterr, -ERANGE, "the clock is out of range");
        rc = draft_random_text(random, reterr);
        if (rc < 0)
                return rc;
        free(run->checkpoint);
        if (asprintf(&run->checkpoint, "virtbackupfs-%s-%s-%s", repository, when, random) < 0) {
                run->checkpoint = NULL;
                return fail_oom(reterr);
        }
        return 0;
}

/* The base's checkpoint is of no use for the disk that is blamed, or for none. */
static void do_without_bitmap(Base *base, size_t blamed, const Reason *why) {
        if (blamed < base->disk_count && base_disk_by_bitmap(&base->disks[blamed]))
                base_compare_disk(base, blamed, why);
        else
                base_compare(base, why);
}

/* Begins the job; where the base's checkpoint turns out to be of no use, without it. */
static int begin(Run *run, struct timespec *ret_moment, Reason *reterr) {
        CLEANUP(freep) bool *incremental = calloc(run->base.disk_count, sizeof *incremental);
        Reason why = REASON_INIT;
        int rc;

        if (!incremental)
                return fail_oom(reterr);
        for (bool again = true; again;) {
                size_t blamed = SIZE_MAX;
                SourceJob job = {
                        .blamed = &blamed,
                        .incremental = incremental,
                        .top = run->options->top,
                        .freeze = run->options->freeze,
                        .pause = run->options->pause,
                };

                rc = name_checkpoint(run, reterr);
                if (rc < 0)
                        return rc;
                job.checkpoint = run->checkpoint;
                if (base_bitmap_count(&run->base) > 0) {
                        job.base = run->base.manifest->checkpoint;
                        job.base_definition = run->base.definition;
                }
                for (size_t i = 0; i < run->base.disk_count; i++)
                        incremental[i] = base_disk_by_bitmap(&run->base.disks[i]);
                rc = source_begin(run->source, &job, ret_moment, &why);
                again = rc == -ESTALE && job.base;
                if (again && run->options->wish == CAPTURE_INCREMENTAL)
                        return fail(reterr, rc, "cannot be incremental: %.*s", REASON_MAX - 64, why.text);
                if (again)
                        do_without_bitmap(&run->base, blamed, &why);
        }
        run->began = rc == 0;
        if (rc < 0 && reterr)
                *reterr = why;
        return rc;
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

/* What the point starts from, and which checkpoint of it must stay besides its own. */
static int name_parent(Run *run, Reason *reterr) {
        Manifest *manifest = run->draft.manifest;
        const Manifest *parent = run->base.manifest;
        const char *full_checkpoint;

        manifest->kind = run->base.differential ? POINT_DIFFERENTIAL : POINT_INCREMENTAL;
        manifest->parent = strdup(parent->name);
        if (!manifest->parent)
                return fail_oom(reterr);
        if (run->base.differential)
                full_checkpoint = base_bitmap_count(&run->base) > 0 ? parent->checkpoint : NULL;
        else
                full_checkpoint = parent->full_checkpoint;
        manifest->full_checkpoint = full_checkpoint ? strdup(full_checkpoint) : NULL;
        return full_checkpoint && !manifest->full_checkpoint ? fail_oom(reterr) : 0;
}

/* Of each disk of a point with a parent that no bitmap told about. */
static void tell_ways(const Run *run) {
        for (size_t i = 0; run->base.manifest && i < run->base.disk_count; i++) {
                Reason why;

                if (base_disk_by_bitmap(&run->base.disks[i]))
                        continue;
                base_explain_disk(&run->base, i, &why);
                warn(run, "%s/%s: %s", vm_name(run->vm), run->source_vm.disks[i].name, why.text);
        }
}

/* A point without a disk that starts from another is a full one. */
static int settle_kind(Run *run, Reason *reterr) {
        Manifest *manifest = run->draft.manifest;
        int rc;

        if (run->base.manifest && base_disk_count(&run->base) == 0) {
                Reason why = run->base.disks[0].why;

                fail_within(&why, 0, "%s", run->source_vm.disks[0].name);
                base_give_up(&run->base, &why);
                rc = fall_back_to_full(run, &why, reterr);
                if (rc < 0)
                        return rc;
        }
        manifest->kind = POINT_FULL;
        if (run->base.manifest) {
                rc = require_bitmap(run, reterr);
                if (rc == 0)
                        rc = name_parent(run, reterr);
                if (rc < 0)
                        return rc;
        }
        return reporter_set_kind(run->reporter, manifest->kind) < 0 ? fail_oom(reterr) : 0;
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
                rc = settle_kind(run, reterr);
        if (rc < 0)
                return rc;
        below = is_below_threshold(run, false, &changed);
        if (run->options->threshold == 0)
                tell_ways(run);
        if (!below) {
                rc = copy_run(&copy, run->draft.manifest, reterr);
                if (rc < 0)
                        return rc;
                below = is_below_threshold(run, true, &changed);
        }
        if (!below && run->options->threshold > 0)
                tell_ways(run);
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

        rc = open_source(run, reterr);
        if (rc < 0)
                return rc;
        rc = find_newest(run, reterr);
        if (rc < 0)
                return rc;
        rc = choose_base(run, reterr);
        if (rc < 0)
                return rc;
        rc = begin(run, &moment, reterr);
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
                warn(run, "%s/%s: %s", vm_name(run->vm), run->draft.manifest->name, reason.text);
        return rc < 0 ? rc : 0;
}

/* The point is there: what fails now is for the guardian or the next capture to put right. */
static void end_well(Run *run) {
        const Manifest *newest = run->draft.manifest;
        Reason reason;

        if (source_end(run->source, &reason) < 0) {
                run->job_stays = true;
                warn(run, "%s: the job could not be ended: %s", vm_name(run->vm), reason.text);
        }
        if (leftovers_keep_checkpoints(run->source, newest, &reason) < 0)
                warn(run, "%s: a checkpoint that is no longer needed stays: %s", vm_name(run->vm), reason.text);
        if (reporter_succeed(run->reporter, newest->name, &reason) < 0)
                warn(run, "%s: the state could not be written: %s", vm_name(run->vm), reason.text);
}

/* No point is wanted: all is as if this had not been. */
static void end_without_point(Run *run) {
        Reason reason;

        if (source_end(run->source, &reason) < 0) {
                run->job_stays = true;
                warn(run, "%s: the job could not be ended: %s", vm_name(run->vm), reason.text);
        }
        draft_discard(&run->draft);
        if (leftovers_delete_checkpoints(run->vm, run->source, &reason) < 0)
                warn(run, "%s: a checkpoint that is not needed stays: %s", vm_name(run->vm), reason.text);
        if (reporter_succeed(run->reporter, run->newest, &reason) < 0)
                warn(run, "%s: the state could not be written: %s", vm_name(run->vm), reason.text);
}

/* A VM that goes away, or comes up, is seen as a connection that breaks first: look what is behind it. */
static void explain(Run *run, int rc, Reason *reason) {
        CLEANUP(source_vm_clear) SourceVm now = { 0 };
        Reason why;

        run->over = true;
        if (!run->began || rc == -ECANCELED || rc == -ENOSPC)
                return;
        if (source_confirm(run->source, &why) == -ESTALE)
                *reason = why;
        else if (source_inspect(run->source, &now, NULL) == -EHOSTDOWN)
                fail_within(reason, rc, "%s was shut off while it was captured", vm_name(run->vm));
}

/* Leaves everything as it was before. The cause is told; what fails here is not. */
static void end_badly(Run *run, int rc, Reason *reason) {
        explain(run, rc, reason);
        if (run->began)
                run->job_stays = source_end(run->source, NULL) < 0;
        else if (run->checkpoint)
                (void) source_end_leftovers(run->source, NULL); /* begun halfway, should it come to that */
        draft_discard(&run->draft);
        if (run->checkpoint)
                (void) leftovers_delete_checkpoints(run->vm, run->source, NULL);
        /* Last, so that a full disk has room for it. */
        (void) reporter_fail(run->reporter, reason->text, NULL);
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
                end_well(run);
        else if (rc > 0)
                end_without_point(run);
        else
                end_badly(run, rc, &reason);
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
