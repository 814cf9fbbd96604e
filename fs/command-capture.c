/* fs/command-capture.c - takes a backup now, in the foreground. */
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "capture/capture.h"
#include "command.h"
#include "formats/native/layer-writer.h"
#include "log.h"
#include "progress.h"
#include "source-words.h"
#include "util/bytes.h"
#include "util/io.h"

enum {
        OPTION_FULL,
        OPTION_INCREMENTAL,
        OPTION_SOURCE,
        OPTION_SCRATCH_DIR,
        OPTION_CODEC,
        OPTION_BLOCK_SIZE,
        OPTION_NOTIFY_FD,
};

static const CommandOption options[] = {
        [OPTION_FULL] = { "full", 0, NULL, "store all of every disk" },
        [OPTION_INCREMENTAL] = { "incremental", 0, NULL, "store what changed since the newest point, or fail" },
        [OPTION_SOURCE] = { "source", 0, "SOURCE", "read from there this time; - for standard input" },
        [OPTION_SCRATCH_DIR] = { "scratch-dir", 0, "DIR", "where the hypervisor keeps what the guest overwrites" },
        [OPTION_CODEC] = { "codec", 0, "NAME", "lz4 (default), zstd or none" },
        [OPTION_BLOCK_SIZE] = { "block-size", 0, "N", "bytes that are compressed together; 64K unless told" },
        [OPTION_NOTIFY_FD] = { "notify-fd", 0, "N", NULL },
        { 0 },
};

static atomic_bool cancelled;

static void cancel(int signal_number) {
        (void) signal_number;
        atomic_store(&cancelled, true);
}

/* What was ignored when we were started (nohup, a shell's background job) stays so. */
static void catch_signals(void) {
        const int ends[] = { SIGINT, SIGTERM, SIGHUP };
        struct sigaction action = { .sa_handler = cancel }, old;

        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
                if (sigaction(ends[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
                        sigaction(ends[i], &action, NULL);
        signal(SIGPIPE, SIG_IGN);
}

/* Whoever started us for a trigger learns from this descriptor whether the capture was accepted. */
typedef struct Notice {
        int fd; /* -1: nobody waits, or has been told */
} Notice;

static void notify(Notice *notice, int rc) {
        int32_t code = rc == 0 ? 0 : rc == -EBUSY ? EBUSY : rc == -EROFS ? EROFS : EIO;

        if (notice->fd < 0)
                return;
        (void) write_whole(notice->fd, &code, sizeof code);
        close(notice->fd);
        notice->fd = -1;
}

typedef struct Context {
        const char *vm;
        Notice notice;
        bool triggered; /* nobody sees our stderr: what is to be said goes into the log */
} Context;

static void accepted(void *context) {
        Context *capture = context;

        notify(&capture->notice, 0);
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
        uint64_t done = 0, total = 0;

        for (size_t i = 0; i < state->disk_count; i++) {
                done += state->disks[i].done;
                total += state->disks[i].total;
        }
        progress_show(capture->vm, done, total, state->rate);
}

static int parse_number(const char *text, unsigned long long max, unsigned long long *ret) {
        unsigned long long number, unit = 1;
        char *end;

        if (*text < '0' || *text > '9')
                return -EINVAL;
        errno = 0;
        number = strtoull(text, &end, 10);
        if (*end == 'K' || *end == 'k')
                unit = 1u << 10;
        else if (*end == 'M' || *end == 'm')
                unit = 1u << 20;
        if (unit > 1)
                end++;
        if (errno || *end || number > max / unit)
                return -EINVAL;
        *ret = number * unit;
        return 0;
}

/* -1 where the options are right, else the status to exit with. */
static int parse_options(const Command *command, int argc, char **argv, CaptureOptions *ret, char **ret_source,
                         Notice *notice) {
        CommandParse parse = { 0 };
        Reason reason = REASON_INIT;
        unsigned long long number;
        bool full = false, incremental = false;

        while (command_parse(command, argc, argv, &parse))
                switch (parse.option) {
                case OPTION_FULL:
                        full = true;
                        break;
                case OPTION_INCREMENTAL:
                        incremental = true;
                        break;
                case OPTION_SOURCE:
                        if (source_words_take(parse.argument, ret_source, &reason) < 0)
                                return command_failed(&reason);
                        break;
                case OPTION_SCRATCH_DIR:
                        ret->scratch_directory = parse.argument;
                        break;
                case OPTION_CODEC:
                        ret->codec = codec_by_name(parse.argument);
                        if (!ret->codec)
                                return command_misused(command, "no codec is called %s", parse.argument);
                        break;
                case OPTION_BLOCK_SIZE:
                        if (parse_number(parse.argument, NATIVE_BLOCK_SIZE_MAX, &number) < 0 || !is_power_of_2(number) ||
                            number < NATIVE_BLOCK_SIZE_MIN)
                                return command_misused(command, "a block size is a power of 2 from %uK to %uK, not %s",
                                                       NATIVE_BLOCK_SIZE_MIN >> 10, NATIVE_BLOCK_SIZE_MAX >> 10,
                                                       parse.argument);
                        ret->block_size = (uint32_t) number;
                        break;
                case OPTION_NOTIFY_FD:
                        if (parse_number(parse.argument, INT_MAX, &number) < 0)
                                return command_misused(command, "%s is no descriptor", parse.argument);
                        notice->fd = (int) number;
                        break;
                }
        if (parse.status >= 0)
                return parse.status;
        if (full && incremental)
                return command_misused(command, "either --full or --incremental");
        ret->source = *ret_source;
        ret->wish = full ? CAPTURE_FULL : incremental ? CAPTURE_INCREMENTAL : CAPTURE_AUTO;
        return -1;
}

/* This program once more, wherever it lies; after an upgrade the very file that runs. */
static int program_path(char ret[static PATH_MAX]) {
        ssize_t length = readlink("/proc/self/exe", ret, PATH_MAX - 1);

        if (length < 0)
                return -errno;
        ret[length] = 0;
        if (access(ret, X_OK) < 0)
                snprintf(ret, PATH_MAX, "/proc/self/exe");
        return 0;
}

static int capture(const char *path, const char *name, CaptureOptions *capture_options, Manifest **ret, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(vm_freep) Vm *vm = NULL;
        CLEANUP(freep) char *scratch_directory = NULL;
        char program[PATH_MAX];
        const char *guardian[] = { program, "guardian", NULL, name, NULL };
        int rc;

        rc = program_path(program);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot find this program");
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
        guardian[2] = repository_path(repository);
        capture_options->guardian_argv = guardian;
        return capture_run(vm, capture_options, ret, reterr);
}

static int run(const Command *command, int argc, char **argv) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        CLEANUP(freep) char *source = NULL;
        Context context = { .notice = { -1 } };
        CaptureOptions capture_options = {
                .codec = codec_by_name("lz4"),
                .block_size = NATIVE_BLOCK_SIZE_DEFAULT,
                .cancel = &cancelled,
                .accepted = accepted,
                .warn = warn,
                .progress = show_progress,
                .context = &context,
        };
        Reason reason = REASON_INIT;
        char line[VM_NAME_MAX + POINT_NAME_MAX + 3];
        int rc, status;

        status = parse_options(command, argc, argv, &capture_options, &source, &context.notice);
        if (status >= 0) {
                notify(&context.notice, -EIO);
                return status;
        }
        catch_signals();
        context.vm = argv[optind + 1];
        context.triggered = context.notice.fd >= 0;
        if (context.triggered)
                log_to_syslog();
        rc = capture(argv[optind], argv[optind + 1], &capture_options, &manifest, &reason);
        progress_clear();
        if (rc < 0) {
                notify(&context.notice, rc);
                if (context.triggered && rc != -EBUSY)
                        log_line(LOG_ERR, "%s", reason.text);
                return command_failed(&reason);
        }
        snprintf(line, sizeof line, "%s/%s\n", manifest->vm, manifest->name);
        return command_print(line, strlen(line));
}

const Command command_capture = {
        .name = "capture",
        .arguments = "REPO VM",
        .summary = "take a backup now: incremental where possible, else full, saying why",
        .options = options,
        .words_min = 2,
        .words_max = 2,
        .run = run,
};
