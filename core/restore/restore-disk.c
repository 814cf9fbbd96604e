#include "restore/restore.h"

#include <errno.h>
#include <stdio.h>

#include "chain/chain.h"
#include "repository/manifest.h"
#include "restore/journal.h"
#include "restore/transfer.h"
#include "util/bytes.h"
#include "util/scratch.h"
#include "util/text.h"

#define SAMPLES 64 /* places of a target that are looked at for old content, besides its ends */

static void tell(const RestoreOptions *options, const char *line) {
        if (options->tell)
                options->tell(options->context, line);
}

static int check_sample(DiskTarget *target, unsigned char *buffer, uint64_t offset, size_t length, Reason *reterr) {
        int rc = disk_target_read(target, buffer, length, offset, reterr);

        if (rc < 0)
                return rc;
        if (bytes_are_zero(buffer, length))
                return 0;
        return fail(reterr, -EEXIST, "%s is not empty: --force writes over what it has", target->shown);
}

/* Both ends, where things are told what they are, and samples. */
static int check_empty(DiskTarget *target, Reason *reterr) {
        uint64_t size = target->size, last = size > JOURNAL_HEAD ? round_down(size - JOURNAL_HEAD, target->grain) : 0;
        unsigned char *buffer = scratch_get(SCRATCH_ANSWER, JOURNAL_HEAD + TARGET_GRAIN);
        int rc;

        if (!buffer)
                return fail_oom(reterr);
        rc = check_sample(target, buffer, 0, min_u64(JOURNAL_HEAD, size), reterr);
        if (rc == 0 && last > 0)
                rc = check_sample(target, buffer, last, min_u64(JOURNAL_HEAD, size - last), reterr);
        for (uint64_t i = 1; rc == 0 && last > 0 && i < SAMPLES; i++)
                rc = check_sample(target, buffer, round_down(last / SAMPLES * i, target->grain), target->grain, reterr);
        return rc;
}

/* One disk and its target. */
typedef struct Restore {
        Chain *chain;
        const char *path; /* VM/POINT/DISK */
        const RestoreOptions *options;
        DiskTarget *target;
        Journal journal;
        bool goes_on; /* where an interrupted one stopped */
        bool began;   /* the target is not what it was */
        bool differs; /* from what was written */
} Restore;

static void tell_going_on(const Restore *restore) {
        char line[REASON_MAX];

        snprintf(line, sizeof line, "%s: an interrupted restore of the same disk goes on at %llu of %llu MiB",
                 restore->target->shown, (unsigned long long) restore->journal.done >> 20,
                 (unsigned long long) restore->target->disk_size >> 20);
        if (restore->journal.done > JOURNAL_HEAD)
                tell(restore->options, line);
}

/* Sees whether there is something to go on with; else that nothing is there which may not go. */
static int look_at_target(Restore *restore, const char *what, Reason *reterr) {
        DiskTarget *target = restore->target;
        JournalState state;
        int rc;

        rc = journal_open(target, what, &restore->journal, &state, reterr);
        if (rc < 0)
                return rc;
        /* What was skipped then would be an error now. */
        restore->goes_on = state == JOURNAL_FOUND && (restore->journal.skipped == 0 || restore->options->skip_unreadable);
        if (restore->goes_on)
                tell_going_on(restore);
        else if (!target->in_place)
                rc = disk_target_clear(target, reterr);
        else if (state == JOURNAL_NONE && !restore->options->replace)
                rc = check_empty(target, reterr);
        return rc;
}

static int compare(Restore *restore, int (*part)(Transfer *, Reason *), Transfer *transfer, Reason *reterr) {
        int rc = restore->options->verify ? part(transfer, reterr) : 0;

        restore->differs = rc == -EIO;
        return rc;
}

static int write_all(Restore *restore, uint64_t *ret_skipped, Reason *reterr) {
        CLEANUP(transfer_freep) Transfer *transfer = NULL;
        int rc;

        if (!restore->goes_on) {
                restore->journal.done = JOURNAL_HEAD;
                restore->journal.skipped = 0;
        }
        rc = transfer_new(restore->chain, restore->path, &restore->journal, restore->options, &transfer, reterr);
        if (rc < 0)
                return rc;
        restore->began = true;
        if (!restore->goes_on)
                rc = journal_begin(&restore->journal, reterr);
        if (rc == 0)
                rc = transfer_body(transfer, reterr);
        if (rc == 0)
                rc = compare(restore, transfer_compare_body, transfer, reterr);
        if (rc == 0)
                rc = transfer_head(transfer, reterr);
        if (rc == 0)
                rc = compare(restore, transfer_compare_head, transfer, reterr);
        if (rc == 0)
                *ret_skipped = transfer_skipped(transfer);
        return rc;
}

/* Says what there is of it now; and where it cannot be gone on with, sees to that. */
static void give_up(Restore *restore) {
        DiskTarget *target = restore->target;
        bool keep = restore->goes_on || restore->journal.done > JOURNAL_HEAD;
        char line[REASON_MAX];

        if (restore->differs && target->in_place)
                (void) journal_begin(&restore->journal, NULL);
        keep &= !restore->differs;
        if (target->in_place)
                snprintf(line, sizeof line, "%s is not whole: restore to it again", target->shown);
        else
                snprintf(line, sizeof line, "%s has %llu of %llu MiB: the same command goes on from there",
                         target->unfinished, (unsigned long long) restore->journal.done >> 20,
                         (unsigned long long) target->disk_size >> 20);
        if (restore->began && (keep || target->in_place))
                tell(restore->options, line);
        disk_target_close(target, keep);
}

static int run(Restore *restore, const TargetRequest *request, const char *what, uint64_t *ret_skipped, Reason *reterr) {
        int rc;

        rc = disk_target_open(request, &restore->target, reterr);
        if (rc < 0)
                return rc;
        rc = look_at_target(restore, what, reterr);
        if (rc == 0)
                rc = write_all(restore, ret_skipped, reterr);
        if (rc < 0) {
                give_up(restore);
                return rc == -ECANCELED ? fail(reterr, rc, "interrupted") : rc;
        }
        rc = disk_target_finish(restore->target, reterr);
        disk_target_close(restore->target, true);
        return rc;
}

int restore_disk(Vm *vm, const char *point, const char *disk, const char *target, const RestoreOptions *options,
                 uint64_t *ret_skipped, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        CLEANUP(freep) char *what = NULL, *path = NULL;
        Restore restore = { .options = options };
        TargetRequest request = {
                .name = target,
                .format = options->format,
                .replace = options->replace,
                .cancel = options->cancel,
                .tell = options->tell,
                .context = options->context,
        };
        int rc;

        rc = manifest_read(vm, point, &manifest, reterr);
        if (rc == 0)
                rc = chain_open(vm, point, disk, &chain, reterr);
        if (rc < 0)
                return rc;
        if (text_format(&what, "%s/%s/%s", manifest->vm_uuid, manifest->capture, disk) < 0)
                return fail_oom(reterr);
        if (text_format(&path, "%s/%s/%s", vm_name(vm), point, disk) < 0)
                return fail_oom(reterr);
        restore.path = path;
        restore.chain = chain;
        request.size = chain_size(chain);
        return run(&restore, &request, what, ret_skipped, reterr);
}
