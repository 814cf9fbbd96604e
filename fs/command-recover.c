/* fs/command-recover.c - a VM runs from a point at once, while its disks become its own. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cancel.h"
#include "command.h"
#include "machine/recovery.h"
#include "number.h"
#include "own-program.h"
#include "path.h"
#include "progress.h"
#include "util/cleanup.h"

enum {
        OPTION_CONNECT, OPTION_INTO, OPTION_NAME, OPTION_KEEP_IDENTITY, OPTION_UNPLUG, OPTION_RATE, OPTION_JSON, OPTION_ABORT,
};

static const CommandOption options[] = {
        [OPTION_CONNECT] = { "connect", 'c', "URI", "the libvirt that gets the VM (where it was, else as virsh chooses)" },
        [OPTION_INTO] = { "into", 0, "DIR|POOL", "where its disks go to stay (the default storage pool)" },
        [OPTION_NAME] = { "name", 0, "NAME", "what it is called (as it was)" },
        [OPTION_KEEP_IDENTITY] = { "keep-identity", 0, NULL, "with the UUID and the MAC addresses that it had" },
        [OPTION_UNPLUG] = { "unplug", 0, NULL, "its network cards lead nowhere" },
        [OPTION_RATE] = { "rate", 0, "BYTES", "stream no more than this in a second (K, M, G)" },
        [OPTION_JSON] = { "json", 0, NULL, "tell progress in lines of JSON on stderr" },
        [OPTION_ABORT] = { "abort", 0, NULL, "take away a VM that is not recovered yet, and what it has written" },
        { 0 },
};

static void tell(void *context, const char *line) {
        progress_clear();
        command_tell(line);
}

static void warn(void *context, const char *line) {
        progress_clear();
        command_warn(line);
}

typedef struct Context {
        const char *path;
        bool json;
} Context;

static void show_progress(void *data, const RecoveryProgress *disks, size_t count, uint64_t rate) {
        CLEANUP(freep) ProgressBar *bars = calloc(count + 1, sizeof *bars);
        const Context *context = data;
        const Progress progress = {
                .key = "path", .subject = context->path, .disks = bars, .disk_count = count, .rate = rate,
        };

        for (size_t i = 0; bars && i < count; i++)
                bars[i] = (ProgressBar) { disks[i].disk, disks[i].done, disks[i].total };
        if (bars)
                progress_show(&progress, context->json);
}

/* The newest point where none is named. */
static int find_point(Repository *repository, const char *text, Path *path, bool *ret_newest, Reason *reterr) {
        int rc = path_resolve(repository, text, path, reterr);

        if (rc < 0)
                return rc;
        if (path->disk)
                return fail(reterr, -EINVAL, "%s is a disk: a VM is recovered with all of its disks", text);
        *ret_newest = !path->point[0];
        return path->point[0] ? 0 : point_resolve(path->vm, "latest", path->point, reterr);
}

static int recover(const char *repository_path_given, const char *text, RecoveryWish *wish, bool abort, char **ret_name,
                   Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(path_clear) Path path = { 0 };
        char program[PATH_MAX];
        int rc;

        rc = own_program(program, reterr);
        if (rc == 0)
                rc = repository_open(repository_path_given, REPOSITORY_CACHE_DEFAULT, &repository, reterr);
        if (rc == 0)
                rc = find_point(repository, text, &path, &wish->newest, reterr);
        if (rc < 0)
                return rc;
        wish->vm = path.vm;
        wish->point = path.point;
        wish->program = program;
        return abort ? recovery_abort(wish, ret_name, reterr) : recovery_run(wish, ret_name, reterr);
}

static int run(const Command *command, int argc, char **argv) {
        Context context = { 0 };
        RecoveryWish wish = {
                .cancel = cancel_on_signals(), .tell = tell, .warn = warn, .progress = show_progress, .context = &context,
        };
        CLEANUP(freep) char *name = NULL;
        CommandParse parse = { 0 };
        Reason reason = REASON_INIT;
        bool abort = false;
        int rc;

        while (command_parse(command, argc, argv, &parse))
                switch (parse.option) {
                case OPTION_CONNECT:
                        wish.uri = parse.argument;
                        break;
                case OPTION_INTO:
                        wish.place = parse.argument;
                        break;
                case OPTION_NAME:
                        wish.name = parse.argument;
                        break;
                case OPTION_KEEP_IDENTITY:
                        wish.keep_identity = true;
                        break;
                case OPTION_UNPLUG:
                        wish.unplugged = true;
                        break;
                case OPTION_RATE:
                        if (size_parse(parse.argument, UINT64_MAX / 2, &wish.rate) < 0 || wish.rate == 0)
                                return command_misused(command, "--rate is bytes per second, not %s", parse.argument);
                        break;
                case OPTION_JSON:
                        context.json = true;
                        break;
                case OPTION_ABORT:
                        abort = true;
                        break;
                }
        if (parse.status >= 0)
                return parse.status;
        context.path = argv[optind + 1];
        rc = recover(argv[optind], argv[optind + 1], &wish, abort, &name, &reason);
        progress_clear();
        if (rc < 0)
                return command_failed(&reason);
        printf("%s\n", name);
        return command_print("", 0);
}

const Command command_recover = {
        .name = "recover",
        .arguments = "REPO VM[/POINT]",
        .summary = "start a VM from a point at once, while its disks become its own",
        .options = options,
        .words_min = 2,
        .words_max = 2,
        .run = run,
};
