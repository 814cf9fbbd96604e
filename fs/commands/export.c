/* fs/commands/export.c - writes a point, or one of its disks, for other tools. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "command-line/cancel.h"
#include "command-line/command.h"
#include "command-line/disk-progress.h"
#include "command-line/path.h"
#include "command-line/progress.h"
#include "export/export.h"
#include "repository/points-lock.h"
#include "restore/restore.h"

enum { OPTION_FORMAT, OPTION_CHAIN, OPTION_FORCE, OPTION_JSON };
static const CommandOption options[] = {
        [OPTION_FORMAT] = { "format", 'f', "FORMAT", "vma, qcow2 or raw (default: as the target's name ends)" },
        [OPTION_CHAIN] = { "chain", 0, NULL, "qcow2: a file for each point of the chain, in a directory" },
        [OPTION_FORCE] = { "force", 0, NULL, "replace what is there already" },
        [OPTION_JSON] = { "json", 0, NULL, "tell progress in lines of JSON on stderr" },
        { 0 },
};

typedef struct Context {
        const char *format; /* NULL: as the target's name says */
        bool chain, replace;
        const atomic_bool *cancel;
        DiskProgress progress;
} Context;

static void show_progress(void *context, const RestoreProgress *disks, size_t count) {
        disk_progress_show(&((Context *) context)->progress, disks, count);
}

static void tell(void *context, const char *line) {
        (void) context;
        progress_clear();
        command_tell(line);
}

/* "vma", "qcow2", "raw". */
static int settle_format(Context *context, const char *target, Reason *reterr) {
        static const char *const known[] = { "vma", "qcow2", "raw" };
        const char *ending = strrchr(target, '.'), *told = context->format;

        if (!told)
                context->format = context->chain ? "qcow2" : ending ? ending + 1 : "";
        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
                if (strcmp(context->format, known[i]) == 0)
                        return 0;
        return told ? fail(reterr, -EINVAL, "--format is vma, qcow2 or raw, not %s", told)
                    : fail(reterr, -EINVAL, "%s does not end as a format does: --format is vma, qcow2 or raw", target);
}

/* An image each is what a restore makes. */
static int export_images(const Path *path, const char *target, Context *context, Reason *reterr) {
        RestoreOptions wanted = {
                .format = context->format,
                .replace = context->replace,
                .cancel = context->cancel,
                .progress = show_progress,
                .tell = tell,
                .context = context,
        };
        uint64_t skipped;

        if (path->disk)
                return restore_disk(path->vm, path->point, path->disk, target, &wanted, &skipped, reterr);
        return restore_point(path->vm, path->point, target, &wanted, &skipped, reterr);
}

static int export(const char *repository_path, const char *text, const char *target, Context *context, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(path_clear) Path path = { 0 };
        CLEANUP(close_fd) int lock_fd = -1;
        ExportOptions wanted = {
                .replace = context->replace,
                .cancel = context->cancel,
                .progress = show_progress,
                .tell = tell,
                .context = context,
        };
        int rc;

        rc = path_open(repository_path, text, &repository, &path, reterr);
        if (rc < 0)
                return rc;
        if (!path.point[0])
                return fail(reterr, -EINVAL, "%s names a VM: what is exported is VM/POINT or VM/POINT/DISK, as in %s/latest",
                            text, text);
        rc = points_lock_share(path.vm, &lock_fd, reterr);
        if (rc < 0)
                return rc;
        if (strcmp(context->format, "vma") == 0) {
                if (path.disk)
                        return fail(reterr, -EINVAL, "%s names a disk: a VMA archive has all of a point, VM/POINT", text);
                return export_vma(path.vm, path.point, target, &wanted, reterr);
        }
        if (strcmp(target, "-") == 0)
                return fail(reterr, -EINVAL, "only a VMA archive can be written to standard output");
        if (!context->chain)
                return export_images(&path, target, context, reterr);
        if (!path.disk)
                return fail(reterr, -EINVAL, "%s names no disk: a chain is that of one disk, VM/POINT/DISK", text);
        return export_qcow2_chain(path.vm, path.point, path.disk, target, &wanted, reterr);
}

static int run(const Command *command, int argc, char **argv) {
        Context context = { .cancel = cancel_on_signals() };
        CommandParse parse = { 0 };
        Reason reason = REASON_INIT;
        int rc;

        while (command_parse(command, argc, argv, &parse)) {
                if (parse.option == OPTION_FORMAT)
                        context.format = parse.argument;
                context.chain |= parse.option == OPTION_CHAIN;
                context.replace |= parse.option == OPTION_FORCE;
                context.progress.json |= parse.option == OPTION_JSON;
        }
        if (parse.status >= 0)
                return parse.status;
        context.progress.path = argv[optind + 1];
        if (settle_format(&context, argv[optind + 2], &reason) < 0)
                return command_misused(command, "%s", reason.text);
        if (context.chain && strcmp(context.format, "qcow2") != 0)
                return command_misused(command, "only qcow2 images can be a chain");
        rc = export(argv[optind], argv[optind + 1], argv[optind + 2], &context, &reason);
        progress_clear();
        return rc < 0 ? command_failed(&reason) : STATUS_DONE;
}

const Command command_export = {
        .name = "export",
        .arguments = "REPO PATH TARGET",
        .summary = "write a point for other tools: VMA, qcow2, raw",
        .options = options,
        .words_min = 3,
        .words_max = 3,
        .run = run,
};
