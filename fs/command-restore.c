/* fs/command-restore.c - writes a disk, or all of a point, to where machines can use it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cancel.h"
#include "command.h"
#include "disk-progress.h"
#include "disk-progress.h"
#include "path.h"
#include "progress.h"
#include "restore/restore.h"
#include "restore/target.h"
#include "source-words.h"

enum { OPTION_FORMAT, OPTION_FORCE, OPTION_VERIFY, OPTION_ON_SOURCE_ERROR, OPTION_JSON };
static const CommandOption options[] = {
        [OPTION_FORMAT] = { "format", 'f', "FORMAT", "raw or qcow2 (default: as the target's name says, else raw)" },
        [OPTION_FORCE] = { "force", 0, NULL, "replace what is there already" },
        [OPTION_VERIFY] = { "verify", 0, NULL, "read again what was written, and compare" },
        [OPTION_ON_SOURCE_ERROR] = { "on-source-error", 0, "WORD", "report (default), or skip: leave zeroes, exit with 3" },
        [OPTION_JSON] = { "json", 0, NULL, "tell progress in lines of JSON on stderr" },
        { 0 },
};

typedef struct Context {
        RestoreOptions options;
        DiskProgress progress;
} Context;

static void show_progress(void *data, const RestoreProgress *disks, size_t count) {
        disk_progress_show(&((Context *) data)->progress, disks, count);
}

static void tell(void *context, const char *line) {
        (void) context;
        progress_clear();
        command_tell(line);
}

static void tell_skipped(void *context, const char *disk, uint64_t start, uint64_t length, const Reason *why) {
        char line[REASON_MAX + 128];

        (void) context;
        progress_clear();
        snprintf(line, sizeof line, "%s: %" PRIu64 " bytes at %" PRIu64 " are zeroes, as they cannot be read: %s", disk, length,
                 start, why->text);
        command_warn(line);
}

static int restore(const char *repository_path, const char *text, const char *target, const RestoreOptions *options_,
                   uint64_t *ret_skipped, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(path_clear) Path path = { 0 };
        int rc;

        rc = repository_open(repository_path, REPOSITORY_CACHE_DEFAULT, &repository, reterr);
        if (rc < 0)
                return rc;
        rc = path_resolve(repository, text, &path, reterr);
        if (rc < 0)
                return rc;
        if (!path.point[0])
                return fail(reterr, -EINVAL, "%s names a VM: what is restored is VM/POINT or VM/POINT/DISK, as in %s/latest",
                            text, text);
        if (path.disk)
                return restore_disk(path.vm, path.point, path.disk, target, options_, ret_skipped, reterr);
        return restore_point(path.vm, path.point, target, options_, ret_skipped, reterr);
}

/* -1 where the options are right, else the status to exit with. */
static int parse(const Command *command, int argc, char **argv, Context *context) {
        CommandParse parse = { 0 };
        RestoreOptions *wanted = &context->options;
        Reason reason;

        while (command_parse(command, argc, argv, &parse)) {
                if (parse.option == OPTION_FORMAT)
                        wanted->format = parse.argument;
                if (parse.option == OPTION_ON_SOURCE_ERROR && strcmp(parse.argument, "skip") != 0 &&
                    strcmp(parse.argument, "report") != 0)
                        return command_misused(command, "--on-source-error is report or skip, not %s", parse.argument);
                if (parse.option == OPTION_ON_SOURCE_ERROR)
                        wanted->skip_unreadable = strcmp(parse.argument, "skip") == 0;
                wanted->replace |= parse.option == OPTION_FORCE;
                wanted->verify |= parse.option == OPTION_VERIFY;
                context->progress.json |= parse.option == OPTION_JSON;
        }
        if (parse.status < 0 && wanted->format && target_format("", wanted->format, &wanted->format, &reason) < 0)
                return command_misused(command, "%s", reason.text);
        return parse.status;
}

/* A URI may have secrets in it, which go from where process lists show them; "-" reads it from standard input. */
static int take_target(char *word, char **ret, Reason *reterr) {
        if (strcmp(word, "-") == 0 || strstr(word, "://"))
                return source_words_take(word, ret, reterr);
        *ret = strdup(word);
        return *ret ? 0 : fail_oom(reterr);
}

static int run(const Command *command, int argc, char **argv) {
        Context context = {
                .options = {
                        .cancel = cancel_on_signals(),
                        .progress = show_progress,
                        .skipped = tell_skipped,
                        .tell = tell,
                },
        };
        CLEANUP(freep) char *target = NULL;
        Reason reason = REASON_INIT;
        uint64_t skipped = 0;
        int status, rc;

        status = parse(command, argc, argv, &context);
        if (status >= 0)
                return status;
        context.progress.path = argv[optind + 1];
        context.options.context = &context;
        rc = take_target(argv[optind + 2], &target, &reason);
        if (rc == 0)
                rc = restore(argv[optind], argv[optind + 1], target, &context.options, &skipped, &reason);
        progress_clear();
        if (rc < 0)
                return command_failed(&reason);
        return skipped > 0 ? STATUS_FINDINGS : STATUS_DONE;
}

const Command command_restore = {
        .name = "restore",
        .arguments = "REPO PATH TARGET",
        .summary = "write a disk to a file, device or server, or a point into a directory",
        .options = options,
        .words_min = 3,
        .words_max = 3,
        .run = run,
};
