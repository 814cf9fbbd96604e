/* fs/commands/recover.c - a VM runs from a point at once, while its disks become its own. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "command-line/cancel.h"
#include "command-line/command.h"
#include "command-line/disk-progress.h"
#include "command-line/path.h"
#include "command-line/progress.h"
#include "machine/recovery.h"
#include "machine/trial.h"
#include "number.h"
#include "own-program.h"
#include "util/cleanup.h"

#define TIMEOUT_MAX 86400 /* seconds */

enum {
        OPTION_CONNECT, OPTION_INTO, OPTION_NAME, OPTION_KEEP_IDENTITY, OPTION_UNPLUG, OPTION_RATE, OPTION_JSON,
        OPTION_ABORT, OPTION_TEST, OPTION_UNTIL, OPTION_TIMEOUT,
};

static const CommandOption options[] = {
        [OPTION_CONNECT] = { "connect", 'c', "URI", "the libvirt that gets the VM (where it was, else as virsh chooses)" },
        [OPTION_INTO] = { "into", 0, "DIR|POOL", "where its disks go to stay (the default storage pool)" },
        [OPTION_NAME] = { "name", 0, "NAME", "what it is called (as it was)" },
        [OPTION_KEEP_IDENTITY] = { "keep-identity", 0, NULL, "with the UUID and the MAC addresses that it had" },
        [OPTION_UNPLUG] = { "unplug", 0, NULL, "its network cards lead nowhere" },
        [OPTION_RATE] = { "rate", 0, "SIZE", "stream at most that much a second" },
        [OPTION_JSON] = { "json", 0, NULL, "tell progress in lines of JSON on stderr" },
        [OPTION_ABORT] = { "abort", 0, NULL, "take away a VM that is not recovered yet, and what it has written" },
        [OPTION_TEST] = { "test", 0, NULL, "only see whether it boots, without network, and throw it away: 0 yes, 3 no" },
        [OPTION_UNTIL] = { "until", 0, "TEXT", "it has, once its serial console says this (its guest agent answers)" },
        [OPTION_TIMEOUT] = { "timeout", 0, "SECONDS", "it has not, after so long (300)" },
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

static void show_progress(void *context, const RestoreProgress *disks, size_t count) {
        disk_progress_show(context, disks, count);
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

/* What is asked for: one of both, from the same words. */
typedef struct Request {
        RecoveryWish recovery;
        TrialWish trial;
        bool test, abort;
        const char *only_recovery, *only_trial; /* an option that was given and is for that alone; or NULL */
} Request;

static int recover(const RecoveryWish *wish, bool abort, Reason *reterr) {
        CLEANUP(freep) char *name = NULL;
        int rc = abort ? recovery_abort(wish, &name, reterr) : recovery_run(wish, &name, reterr);

        progress_clear();
        if (rc < 0)
                return rc;
        printf("%s\n", name);
        return command_print("", 0);
}

static int try_it(const TrialWish *wish, const char *vm, Reason *reterr) {
        char line[REASON_MAX + 300];
        TrialResult result;
        int rc = trial_run(wish, &result, reterr);

        if (rc < 0)
                return rc;
        snprintf(line, sizeof line, "%s/%s %s: %s", vm, wish->point, result.booted ? "boots" : "does not boot",
                 result.words);
        command_tell(line);
        return result.booted ? STATUS_DONE : STATUS_FINDINGS;
}

/* The status to exit with, or an error. */
static int carry_out(const char *given, const char *text, Request *request, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(path_clear) Path path = { 0 };
        CLEANUP(freep) char *program = NULL;
        int rc;

        rc = own_program(&program, reterr);
        if (rc == 0)
                rc = repository_open(given, REPOSITORY_CACHE_DEFAULT, &repository, reterr);
        if (rc == 0)
                rc = find_point(repository, text, &path, &request->recovery.newest, reterr);
        if (rc < 0)
                return rc;
        request->recovery.vm = request->trial.vm = path.vm;
        request->recovery.point = request->trial.point = path.point;
        request->recovery.program = request->trial.program = program;
        return request->test ? try_it(&request->trial, vm_name(path.vm), reterr)
                             : recover(&request->recovery, request->abort, reterr);
}

static int take_option(const Command *command, const CommandParse *parse, Request *request, DiskProgress *progress) {
        uint64_t seconds;

        switch (parse->option) {
        case OPTION_CONNECT:
                request->recovery.uri = request->trial.uri = parse->argument;
                return 0;
        case OPTION_INTO:
                request->recovery.place = request->trial.place = parse->argument;
                return 0;
        case OPTION_NAME:
                request->recovery.name = parse->argument;
                break;
        case OPTION_KEEP_IDENTITY:
                request->recovery.keep_identity = true;
                break;
        case OPTION_UNPLUG:
                request->recovery.unplugged = true;
                break;
        case OPTION_RATE:
                if (size_parse(parse->argument, UINT64_MAX / 2, &request->recovery.rate) < 0 || request->recovery.rate == 0)
                        return command_misused(command, "--rate is bytes per second, not %s", parse->argument);
                break;
        case OPTION_JSON:
                progress->json = true;
                break;
        case OPTION_ABORT:
                request->abort = true;
                break;
        case OPTION_TEST:
                request->test = true;
                return 0;
        case OPTION_UNTIL:
                if (!*parse->argument)
                        return command_misused(command, "--until needs some text");
                request->trial.until = parse->argument;
                request->only_trial = "until";
                return 0;
        case OPTION_TIMEOUT:
                if (number_parse(parse->argument, 10, TIMEOUT_MAX, &seconds) < 0 || seconds == 0)
                        return command_misused(command, "--timeout is a number of seconds, not %s", parse->argument);
                request->trial.timeout = (unsigned) seconds;
                request->only_trial = "timeout";
                return 0;
        }
        request->only_recovery = options[parse->option].name;
        return 0;
}

static int run(const Command *command, int argc, char **argv) {
        const atomic_bool *cancel = cancel_on_signals();
        DiskProgress progress = { 0 };
        Request request = {
                .recovery = {
                        .cancel = cancel, .tell = tell, .warn = warn, .progress = show_progress, .context = &progress,
                },
                .trial = { .cancel = cancel, .tell = tell, .warn = warn, .timeout = TRIAL_TIMEOUT_DEFAULT },
        };
        CommandParse parse = { 0 };
        Reason reason = REASON_INIT;
        int status;

        while (command_parse(command, argc, argv, &parse)) {
                status = take_option(command, &parse, &request, &progress);
                if (status != 0)
                        return status;
        }
        if (parse.status >= 0)
                return parse.status;
        if (request.test && request.only_recovery)
                return command_misused(command, "--%s is not for a test", request.only_recovery);
        if (!request.test && request.only_trial)
                return command_misused(command, "--%s is for --test", request.only_trial);
        progress.path = argv[optind + 1];
        status = carry_out(argv[optind], argv[optind + 1], &request, &reason);
        progress_clear();
        return status < 0 ? command_failed(&reason) : status;
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
