/* fs/commands/restore.c - writes a disk, or all of a point, to where machines can use it. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "command-line/cancel.h"
#include "command-line/command.h"
#include "command-line/disk-progress.h"
#include "command-line/path.h"
#include "command-line/progress.h"
#include "command-line/source-words.h"
#include "machine/restoration.h"
#include "repository/points-lock.h"
#include "restore/restore.h"
#include "restore/target.h"
#include "util/text.h"

enum {
        OPTION_FORMAT, OPTION_FORCE, OPTION_VERIFY, OPTION_ON_SOURCE_ERROR, OPTION_JSON,
        OPTION_DEFINE, OPTION_CONNECT, OPTION_POOL, OPTION_NAME, OPTION_KEEP_IDENTITY, OPTION_START,
};
static const CommandOption options[] = {
        [OPTION_FORMAT] = { "format", 'f', "FORMAT", "raw or qcow2 (default: as the target's name says, else raw)" },
        [OPTION_FORCE] = { "force", 0, NULL, "replace what is there already" },
        [OPTION_VERIFY] = { "verify", 0, NULL, "read again what was written, and compare" },
        [OPTION_ON_SOURCE_ERROR] = { "on-source-error", 0, "WORD", "report (default), or skip: leave zeroes, exit with 3" },
        [OPTION_JSON] = { "json", 0, NULL, "tell progress in lines of JSON on stderr" },
        [OPTION_DEFINE] = { "define", 0, NULL, "make a VM of the point in libvirt, of qcow2 images unless told otherwise" },
        [OPTION_CONNECT] = { "connect", 'c', "URI", "the libvirt that gets it (where it was, else as virsh chooses)" },
        [OPTION_POOL] = { "pool", 0, "POOL", "the storage pool for its disks where no TARGET is given (default)" },
        [OPTION_NAME] = { "name", 0, "NAME", "what it is called (as it was)" },
        [OPTION_KEEP_IDENTITY] = { "keep-identity", 0, NULL, "with the UUID and the MAC addresses that it had" },
        [OPTION_START] = { "start", 0, NULL, "and start it" },
        { 0 },
};

typedef struct Context {
        RestoreOptions options;
        DiskProgress progress;
        RestorationWish machine; /* where a VM is to be made */
        bool define;
        const char *only_define; /* an option that was given and is for that alone; or NULL */
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
        snprintf(line, sizeof line, "%s: %" PRIu64 " bytes at %" PRIu64 " are zeroes, as they cannot be read: %s", disk,
                 length,
                 start, why->text);
        command_warn(line);
}

static void warn(void *context, const char *line) {
        (void) context;
        progress_clear();
        command_warn(line);
}

/* The VM's name goes to standard output. */
static int make_vm(const Path *path, const char *target, const Context *context, uint64_t *ret_skipped, Reason *reterr) {
        RestorationWish wish = context->machine;
        CLEANUP(freep) char *name = NULL, *directory = NULL;
        int rc;

        wish.vm = path->vm;
        wish.point = path->point;
        wish.options = context->options;
        wish.warn = warn;
        /* With a slash it is no pool. */
        if (target && text_format(&directory, "%s%s", strchr(target, '/') ? "" : "./", target) < 0)
                return fail_oom(reterr);
        if (directory)
                wish.place = directory;
        rc = restoration_run(&wish, &name, ret_skipped, reterr);
        progress_clear();
        if (rc < 0)
                return rc;
        printf("%s\n", name);
        return fflush(stdout) == 0 ? 0 : fail_errno(reterr, -errno, "cannot write the output");
}

static int restore(const char *repository_path, const char *text, const char *target, const Context *context,
                   uint64_t *ret_skipped, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(path_clear) Path path = { 0 };
        CLEANUP(close_fd) int lock_fd = -1;
        int rc;

        rc = path_open(repository_path, text, &repository, &path, reterr);
        if (rc < 0)
                return rc;
        if (!path.point[0])
                return fail(reterr, -EINVAL, "%s names a VM: what is restored is VM/POINT or VM/POINT/DISK, as in %s/latest",
                            text, text);
        if (path.disk && context->define)
                return fail(reterr, -EINVAL, "%s is a disk: a VM is made of a point", text);
        rc = points_lock_share(path.vm, &lock_fd, reterr);
        if (rc < 0)
                return rc;
        if (path.disk)
                return restore_disk(path.vm, path.point, path.disk, target, &context->options, ret_skipped, reterr);
        if (context->define)
                return make_vm(&path, target, context, ret_skipped, reterr);
        return restore_point(path.vm, path.point, target, &context->options, ret_skipped, reterr);
}

/* An option of --define. */
static void take_define(const CommandParse *parse, Context *context) {
        RestorationWish *machine = &context->machine;

        if (parse->option == OPTION_DEFINE)
                context->define = true;
        if (parse->option == OPTION_CONNECT)
                machine->uri = parse->argument;
        if (parse->option == OPTION_POOL)
                machine->place = parse->argument;
        if (parse->option == OPTION_NAME)
                machine->name = parse->argument;
        machine->keep_identity |= parse->option == OPTION_KEEP_IDENTITY;
        machine->start |= parse->option == OPTION_START;
        if (parse->option > OPTION_DEFINE)
                context->only_define = options[parse->option].name;
}

/* That what was given goes together: -1, or the status to exit with. */
static int check(const Command *command, int words, const Context *context) {
        if (!context->define && context->only_define)
                return command_misused(command, "--%s is for --define", context->only_define);
        if (!context->define && words < 3)
                return command_misused(command, "too few arguments, as it takes %s", command->arguments);
        if (context->machine.place && words == 3)
                return command_misused(command, "the disks go to TARGET or to --pool, not to both");
        if (context->define && context->options.replace)
                return command_misused(command, "--define replaces nothing, so that --force is not for it");
        return -1;
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
                take_define(&parse, context);
        }
        if (parse.status < 0 && wanted->format && target_format("", wanted->format, &wanted->format, &reason) < 0)
                return command_misused(command, "%s", reason.text);
        return parse.status >= 0 ? parse.status : check(command, argc - optind, context);
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
        rc = argc - optind == 3 ? take_target(argv[optind + 2], &target, &reason) : 0;
        if (rc == 0)
                rc = restore(argv[optind], argv[optind + 1], target, &context, &skipped, &reason);
        progress_clear();
        if (rc < 0)
                return command_failed(&reason);
        return skipped > 0 ? STATUS_FINDINGS : STATUS_DONE;
}

const Command command_restore = {
        .name = "restore",
        .arguments = "REPO PATH [TARGET]",
        .summary = "write a disk to a file, device or server, or a point into a directory",
        .options = options,
        .words_min = 2,
        .words_max = 3,
        .run = run,
};
