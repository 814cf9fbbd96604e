#include <errno.h>
#include <string.h>

#include "capture/capture-private.h"

/* Nothing can be incremental, for this reason: what that means depends on what is wanted. */
int capture_fall_back_to_full(Run *run, const Reason *why, Reason *reterr) {
        if (run->options->wish == CAPTURE_INCREMENTAL)
                return fail(reterr, -ESTALE, "cannot be incremental: %.*s", REASON_MAX - 64, why->text);
        if (run->options->wish != CAPTURE_FULL)
                capture_warn(run, "%s: captured in full: %s", vm_name(run->vm), why->text);
        return 0;
}

/* Who asks for an incremental point does not want to have all read, which is what comparing takes. */
int capture_require_bitmap(const Run *run, Reason *reterr) {
        const Base *base = &run->base;

        if (run->options->wish != CAPTURE_INCREMENTAL || !base->manifest || base_bitmap_count(base) > 0)
                return 0;
        return fail(reterr, -ESTALE, "cannot be incremental: %s: %.*s", run->source_vm.disks[0].name, REASON_MAX - 128,
                    base->disks[0].why.text);
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

void capture_tell_ways(const Run *run) {
        for (size_t i = 0; run->base.manifest && i < run->base.disk_count; i++) {
                Reason why;

                if (base_disk_by_bitmap(&run->base.disks[i]))
                        continue;
                base_explain_disk(&run->base, i, &why);
                capture_warn(run, "%s/%s: %s", vm_name(run->vm), run->source_vm.disks[i].name, why.text);
        }
}

int capture_settle_kind(Run *run, Reason *reterr) {
        Manifest *manifest = run->draft.manifest;
        int rc;

        if (run->base.manifest && base_disk_count(&run->base) == 0) {
                Reason why = run->base.disks[0].why;

                fail_within(&why, 0, "%s", run->source_vm.disks[0].name);
                base_give_up(&run->base, &why);
                rc = capture_fall_back_to_full(run, &why, reterr);
                if (rc < 0)
                        return rc;
        }
        manifest->kind = POINT_FULL;
        if (run->base.manifest) {
                rc = capture_require_bitmap(run, reterr);
                if (rc == 0)
                        rc = name_parent(run, reterr);
                if (rc < 0)
                        return rc;
        }
        return reporter_set_kind(run->reporter, manifest->kind) < 0 ? fail_oom(reterr) : 0;
}
