#include <errno.h>

#include "capture/capture-private.h"
#include "capture/leftovers.h"

static void end_job(Run *run) {
        Reason reason;

        if (source_end(run->source, &reason) == 0)
                return;
        run->job_stays = true;
        capture_warn(run, "%s: the job could not be ended: %s", vm_name(run->vm), reason.text);
}

static void tell_success(Run *run, const char *newest) {
        Reason reason;

        if (reporter_succeed(run->reporter, newest, &reason) < 0)
                capture_warn(run, "%s: the state could not be written: %s", vm_name(run->vm), reason.text);
}

void capture_end_well(Run *run) {
        const Manifest *newest = run->draft.manifest;
        Reason reason;

        end_job(run);
        if (leftovers_keep_checkpoints(run->source, newest, &reason) < 0)
                capture_warn(run, "%s: a checkpoint that is no longer needed stays: %s", vm_name(run->vm), reason.text);
        tell_success(run, newest->name);
}

void capture_end_without_point(Run *run) {
        Reason reason;

        end_job(run);
        draft_discard(&run->draft);
        if (leftovers_delete_checkpoints(run->vm, run->source, &reason) < 0)
                capture_warn(run, "%s: a checkpoint that is not needed stays: %s", vm_name(run->vm), reason.text);
        tell_success(run, run->newest);
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

void capture_end_badly(Run *run, int rc, Reason *reason) {
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
