#include "command-line/capture-options.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "command-line/codec-option.h"
#include "command-line/source-words.h"
#include "formats/native/layer-writer.h"
#include "number.h"
#include "util/bytes.h"

#define MEMORY_MIN (4u << 20) /* bytes */

enum {
        OPTION_FULL,
        OPTION_INCREMENTAL,
        OPTION_DIFFERENTIAL,
        OPTION_SOURCE,
        OPTION_TOP,
        OPTION_THRESHOLD,
        OPTION_FREEZE,
        OPTION_NO_FREEZE,
        OPTION_PAUSE,
        OPTION_SCRATCH_DIR,
        OPTION_CODEC,
        OPTION_BLOCK_SIZE,
        OPTION_MEMORY,
        OPTION_RATE,
        OPTION_NO_ZERO_DETECTION,
        OPTION_ON_SOURCE_ERROR,
        OPTION_ON_TARGET_ERROR,
        OPTION_COMPARE,
        OPTION_JSON,
        OPTION_NOTIFY_FD,
};

const CommandOption capture_command_options[] = {
        [OPTION_FULL] = { "full", 0, NULL, "store all of every disk" },
        [OPTION_INCREMENTAL] = { "incremental", 0, NULL, "store what changed since the newest point, or fail" },
        [OPTION_DIFFERENTIAL] = { "differential", 0, NULL, "store what changed since the last full point" },
        [OPTION_SOURCE] = { "source", 0, "SOURCE", "read from there this time; - for standard input" },
        [OPTION_TOP] = { "top", 0, NULL, "store only what is above the backing file" },
        [OPTION_THRESHOLD] = { "threshold", 0, "SIZE", "capture nothing where less than this changed" },
        [OPTION_FREEZE] = { "freeze", 0, NULL, "freeze the guest's file systems for a moment, or fail" },
        [OPTION_NO_FREEZE] = { "no-freeze", 0, NULL, "do not, even where the guest's agent offers it" },
        [OPTION_PAUSE] = { "pause", 0, NULL, "let the VM stand still for that moment" },
        [OPTION_SCRATCH_DIR] = { "scratch-dir", 0, "DIR", "where the hypervisor keeps what the guest overwrites" },
        [OPTION_CODEC] = CODEC_OPTION,
        [OPTION_BLOCK_SIZE] = { "block-size", 0, "SIZE", "what is compressed together; 64K unless told" },
        [OPTION_MEMORY] = { "memory", 0, "SIZE", "for what is read and not yet written; 64M unless told" },
        [OPTION_RATE] = { "rate", 0, "SIZE", "read at most that much a second" },
        [OPTION_NO_ZERO_DETECTION] = { "no-zero-detection", 0, NULL, "do not ask the source what is zero" },
        [OPTION_ON_SOURCE_ERROR] = { "on-source-error", 0, "WORD", "report (default), retry or skip" },
        [OPTION_ON_TARGET_ERROR] = { "on-target-error", 0, "WORD", "report (default), retry or wait" },
        [OPTION_COMPARE] = { "compare", 0, NULL, "read all of it again, from the source and as the point shows it" },
        [OPTION_JSON] = { "json", 0, NULL, "tell the progress as lines of JSON on stderr" },
        [OPTION_NOTIFY_FD] = { "notify-fd", 0, "N", NULL },
        { 0 },
};

static const char *const source_error_words[] = {
        [SOURCE_ERROR_REPORT] = "report",
        [SOURCE_ERROR_RETRY] = "retry",
        [SOURCE_ERROR_SKIP] = "skip",
};
static const char *const target_error_words[] = {
        [TARGET_ERROR_REPORT] = "report",
        [TARGET_ERROR_RETRY] = "retry",
        [TARGET_ERROR_WAIT] = "wait",
};

static const int POLICY_COUNT = 3; /* of each */

/* The index of the word; -EINVAL where it is none of them. */
static int find_policy(const char *const *words, const char *word) {
        for (int i = 0; i < POLICY_COUNT; i++)
                if (strcmp(words[i], word) == 0)
                        return i;
        return -EINVAL;
}

static int take_size(const Command *command, const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *ret) {
        if (size_parse(text, max, ret) == 0 && *ret >= min)
                return -1;
        if (min > 1)
                return command_misused(command, "%s is a size of at least %lluK, such as 64M, not %s", what,
                                       (unsigned long long) min >> 10, text);
        return command_misused(command, "%s is a size in bytes, such as 64M, not %s", what, text);
}

static int take_block_size(const Command *command, const char *text, CaptureOptions *options) {
        uint64_t size;

        if (size_parse(text, NATIVE_BLOCK_SIZE_MAX, &size) < 0 || !is_power_of_2(size) || size < NATIVE_BLOCK_SIZE_MIN)
                return command_misused(command, "a block size is a power of 2 from %uK to %uK, not %s",
                                       NATIVE_BLOCK_SIZE_MIN >> 10, NATIVE_BLOCK_SIZE_MAX >> 10, text);
        options->block_size = (uint32_t) size;
        return -1;
}

static int take_memory(const Command *command, const char *text, CaptureOptions *options) {
        uint64_t size;
        int status = take_size(command, "--memory", text, MEMORY_MIN, SIZE_MAX / 2, &size);

        if (status < 0)
                options->memory = (size_t) size;
        return status;
}

static int take_policies(const Command *command, const CommandParse *parse, CaptureOptions *options) {
        bool of_source = parse->option == OPTION_ON_SOURCE_ERROR;
        int policy = find_policy(of_source ? source_error_words : target_error_words, parse->argument);

        if (policy < 0)
                return command_misused(command, "--on-%s-error is report, retry or %s, not %s",
                                       of_source ? "source" : "target", of_source ? "skip" : "wait", parse->argument);
        if (of_source)
                options->on_source_error = (SourceErrorPolicy) policy;
        else
                options->on_target_error = (TargetErrorPolicy) policy;
        return -1;
}

/* Options that take nothing; which of several that exclude each other was said first is kept, to be told. */
static int take_choice(const Command *command, int option, int *chosen) {
        if (*chosen >= 0 && *chosen != option)
                return command_misused(command, "either --%s or --%s", capture_command_options[*chosen].name,
                                       capture_command_options[option].name);
        *chosen = option;
        return -1;
}

typedef struct Choices {
        int wish, freeze; /* the option, or -1 */
} Choices;

static int take_option(const Command *command, const CommandParse *parse, Choices *choices, CaptureArguments *arguments) {
        CaptureOptions *options = &arguments->options;
        Reason reason = REASON_INIT;
        uint64_t number;

        switch (parse->option) {
        case OPTION_FULL:
        case OPTION_INCREMENTAL:
        case OPTION_DIFFERENTIAL:
                return take_choice(command, parse->option, &choices->wish);
        case OPTION_FREEZE:
        case OPTION_NO_FREEZE:
                return take_choice(command, parse->option, &choices->freeze);
        case OPTION_SOURCE:
                return source_words_take(parse->argument, &arguments->source, &reason) < 0 ? command_failed(&reason) : -1;
        case OPTION_TOP:
                options->top = true;
                break;
        case OPTION_THRESHOLD:
                return take_size(command, "--threshold", parse->argument, 0, INT64_MAX, &options->threshold);
        case OPTION_PAUSE:
                options->pause = true;
                break;
        case OPTION_SCRATCH_DIR:
                options->scratch_directory = parse->argument;
                break;
        case OPTION_CODEC:
                return codec_option_take(command, parse->argument, &options->codec, &options->codec_level);
        case OPTION_BLOCK_SIZE:
                return take_block_size(command, parse->argument, options);
        case OPTION_MEMORY:
                return take_memory(command, parse->argument, options);
        case OPTION_RATE:
                return take_size(command, "--rate", parse->argument, 1, INT64_MAX, &options->rate);
        case OPTION_NO_ZERO_DETECTION:
                options->no_zero_detection = true;
                break;
        case OPTION_ON_SOURCE_ERROR:
        case OPTION_ON_TARGET_ERROR:
                return take_policies(command, parse, options);
        case OPTION_COMPARE:
                options->compare = true;
                break;
        case OPTION_JSON:
                arguments->json = true;
                break;
        case OPTION_NOTIFY_FD:
                if (number_parse(parse->argument, 10, INT_MAX, &number) < 0)
                        return command_misused(command, "%s is no descriptor", parse->argument);
                arguments->notify_fd = (int) number;
                break;
        }
        return -1;
}

static CaptureWish wish_of(int option) {
        switch (option) {
        case OPTION_FULL: return CAPTURE_FULL;
        case OPTION_INCREMENTAL: return CAPTURE_INCREMENTAL;
        case OPTION_DIFFERENTIAL: return CAPTURE_DIFFERENTIAL;
        default: return CAPTURE_AUTO;
        }
}

int capture_arguments_parse(const Command *command, int argc, char **argv, CaptureArguments *ret) {
        CommandParse parse = { 0 };
        Choices choices = { -1, -1 };
        CaptureOptions *options = &ret->options;

        while (command_parse(command, argc, argv, &parse)) {
                int status = take_option(command, &parse, &choices, ret);

                if (status >= 0)
                        return status;
        }
        if (parse.status >= 0)
                return parse.status;
        options->wish = wish_of(choices.wish);
        options->freeze = choices.freeze == OPTION_FREEZE      ? FREEZE_ALWAYS
                          : choices.freeze == OPTION_NO_FREEZE ? FREEZE_NEVER
                                                               : FREEZE_IF_OFFERED;
        options->source = ret->source;
        return -1;
}
