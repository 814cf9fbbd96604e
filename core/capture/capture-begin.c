#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "capture/capture-private.h"
#include "capture/leftovers.h"
#include "util/text.h"

static void warn_from_source(void *context, const char *line) {
        const Run *run = context;

        if (!run->over)
                capture_warn(run, "%s: %s", vm_name(run->vm), line);
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
        return run->base.manifest ? capture_require_bitmap(run, reterr)
                                  : capture_fall_back_to_full(run, &run->base.why, reterr);
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
        if (text_format(&run->checkpoint, "virtbackupfs-%s-%s-%s", repository, when, random) < 0)
                return fail_oom(reterr);
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
static int begin_job(Run *run, struct timespec *ret_moment, Reason *reterr) {
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

int capture_begin(Run *run, struct timespec *ret_moment, Reason *reterr) {
        int rc;

        rc = open_source(run, reterr);
        if (rc == 0)
                rc = find_newest(run, reterr);
        if (rc == 0)
                rc = choose_base(run, reterr);
        return rc == 0 ? begin_job(run, ret_moment, reterr) : rc;
}
