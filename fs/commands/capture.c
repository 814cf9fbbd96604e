/* fs/commands/capture.c - takes a backup now, in the foreground. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture/capture.h"
#include "command-line/cancel.h"
#include "command-line/capture-options.h"
#include "command-line/hand-over.h"
#include "command-line/progress.h"
#include "formats/native/layer-writer.h"
#include "log.h"
#include "own-program.h"
#include "util/io.h"

typedef struct Context {
        const char *path, *vm; /* of the repository; the name */
        CaptureArguments arguments;
        bool triggered; /* nobody sees our stderr: what is to be said goes into the log */
        HandOver hand_over;
        Manifest *manifest; /* of the new point */
        Reason reason;
} Context;

/* Once, where somebody waits for it. */
static void notify(Context *context, int rc) {
        int32_t code = rc == 0 ? 0 : rc == -EBUSY ? EBUSY : rc == -EROFS ? EROFS : EIO;
        int fd = context->arguments.notify_fd;

        if (fd < 0)
                return;
        (void) write_whole(fd, &code, sizeof code);
        close(fd);
        context->arguments.notify_fd = -1;
}

static void accepted(void *context) {
        notify(context, 0);
}

static void warn(void *context, const char *line) {
        const Context *capture = context;

        progress_clear();
        if (capture->triggered)
                log_line(LOG_WARNING, "%s", line);
        else
                command_warn(line);
}

static void show_progress(void *context, const CaptureState *state) {
        const Context *capture = context;
        CLEANUP(freep) ProgressBar *disks = calloc(state->disk_count + 1, sizeof *disks);
        const Progress progress = {
                .key = "vm",
                .subject = capture->vm,
                .disks = disks,
                .disk_count = state->disk_count,
                .rate = state->rate,
                .waits = state->waits,
        };

        for (size_t i = 0; disks && i < state->disk_count; i++)
                disks[i] = (ProgressBar) { state->disks[i].name, state->disks[i].done, state->disks[i].total };
        if (disks)
                progress_show(&progress, capture->arguments.json);
}

static void ending(void *context) {
        Context *capture = context;

        atomic_store(&capture->hand_over.ending, true);
}

static int capture(const char *path, const char *name, CaptureOptions *capture_options, Manifest **ret, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(vm_freep) Vm *vm = NULL;
        CLEANUP(freep) char *scratch_directory = NULL;
        CLEANUP(freep) char *program = NULL;
        const char *guardian[] = { NULL, "guardian", NULL, name, NULL };
        int rc;

        rc = own_program(&program, reterr);
        if (rc < 0)
                return rc;
        if (capture_options->scratch_directory) {
                scratch_directory = realpath(capture_options->scratch_directory, NULL);
                if (!scratch_directory)
                        return fail_errno(reterr, -errno, "scratch directory %s", capture_options->scratch_directory);
                capture_options->scratch_directory = scratch_directory;
        }
        rc = repository_open(path, REPOSITORY_CACHE_DEFAULT, &repository, reterr);
        if (rc < 0)
                return rc;
        rc = vm_open(repository, name, &vm, reterr);
        if (rc < 0)
                return rc;
        guardian[0] = program;
        guardian[2] = repository_path(repository);
        capture_options->guardian_argv = guardian;
        return capture_run(vm, capture_options, ret, reterr);
}

static int capture_in_thread(void *argument) {
        Context *context = argument;

        return capture(context->path, context->vm, &context->arguments.options, &context->manifest, &context->reason);
}

/* It hangs somewhere: its guardian takes down what it began, as if it had been killed. */
static void leave_to_guardian(Context *context) {
        fail(&context->reason, 0, "%s: interrupted; something does not answer, and what was begun is taken down in the "
                                 "background", context->vm);
        if (context->triggered)
                log_line(LOG_ERR, "%s", context->reason.text);
        progress_clear();
        (void) command_failed(&context->reason);
        fflush(NULL);
        _exit(STATUS_FAILED);
}

static int run(const Command *command, int argc, char **argv) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        Context context = { .arguments = { .notify_fd = -1 }, .reason = REASON_INIT };
        char line[VM_NAME_MAX + POINT_NAME_MAX + 3];
        int rc, status;

        context.arguments.options = (CaptureOptions) {
                .codec = codec_by_name("lz4"),
                .block_size = NATIVE_BLOCK_SIZE_DEFAULT,
                .cancel = cancel_on_signals(),
                .accepted = accepted,
                .warn = warn,
                .progress = show_progress,
                .ending = ending,
                .context = &context,
        };
        status = capture_arguments_parse(command, argc, argv, &context.arguments);
        if (status >= 0) {
                notify(&context, -EIO);
                free(context.arguments.source);
                return status;
        }
        context.path = argv[optind];
        context.vm = argv[optind + 1];
        context.triggered = context.arguments.notify_fd >= 0;
        context.hand_over = (HandOver) {
                .work = capture_in_thread,
                .context = &context,
                .cancel = context.arguments.options.cancel,
        };
        if (context.triggered)
                log_to_syslog();
        rc = hand_over_run(&context.hand_over, &context.reason);
        if (rc == -EINPROGRESS)
                leave_to_guardian(&context);
        manifest = context.manifest;
        free(context.arguments.source);
        progress_clear();
        if (rc < 0) {
                notify(&context, rc);
                if (context.triggered && rc != -EBUSY)
                        log_line(LOG_ERR, "%s", context.reason.text);
                return command_failed(&context.reason);
        }
        if (rc > 0) {
                command_tell(context.reason.text);
                return STATUS_DONE;
        }
        snprintf(line, sizeof line, "%s/%s\n", manifest->vm, manifest->name);
        return command_print(line, strlen(line));
}

const Command command_capture = {
        .name = "capture",
        .arguments = "REPO VM",
        .summary = "take a backup now: incremental where possible, else full, saying why",
        .options = capture_command_options,
        .words_min = 2,
        .words_max = 2,
        .run = run,
};
