#include "command-line/command.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/cleanup.h"

#define OPTIONS_MAX 32

static size_t count_options(const Command *command) {
        size_t count = 0;

        while (command->options && command->options[count].name)
                count++;
        assert(count < OPTIONS_MAX);
        return count;
}

static void print_help(const Command *command) {
        size_t count = count_options(command);

        printf("Usage: virtbackupfs %s%s %s\n\n%s\n\n", command->name, count > 0 ? " [OPTIONS]" : "", command->arguments,
               command->summary ?: "Internal.");
        for (size_t i = 0; i < count; i++) {
                const CommandOption *option = &command->options[i];
                char name[64];

                if (!option->help)
                        continue;
                snprintf(name, sizeof name, "--%s%s%s", option->name, option->argument ? " " : "", option->argument ?: "");
                if (option->letter)
                        printf("  -%c, %-24s %s\n", option->letter, name, option->help);
                else
                        printf("      %-24s %s\n", name, option->help);
        }
        printf("      %-24s %s\n", "--help", "show this");
        printf("      %-24s %s\n", "--version", "show the program's version");
}

int command_print_version(void) {
        printf("virtbackupfs %s\n", VIRTBACKUPFS_VERSION);
        return fflush(stdout) == 0 ? STATUS_DONE : STATUS_FAILED;
}

static bool end_parse(CommandParse *parse, int status) {
        parse->status = status;
        return false;
}

/* What getopt_long() would accept: exact names, abbreviations, letters. Values are index + 1 in the command's options. */
bool command_parse(const Command *command, int argc, char **argv, CommandParse *parse) {
        struct option longs[OPTIONS_MAX + 3] = { { NULL, 0, NULL, 0 } };
        char shorts[2 * OPTIONS_MAX + 4] = ":";
        enum { HELP = 1000, VERSION };
        size_t count = count_options(command), end = 1;
        int c, words;

        for (size_t i = 0; i < count; i++) {
                const CommandOption *option = &command->options[i];
                int takes = option->argument ? required_argument : no_argument;

                longs[i] = (struct option) { option->name, takes, NULL, (int) i + 1 };
                if (option->letter) {
                        shorts[end++] = option->letter;
                        if (option->argument)
                                shorts[end++] = ':';
                }
        }
        longs[count] = (struct option) { "help", no_argument, NULL, HELP };
        longs[count + 1] = (struct option) { "version", no_argument, NULL, VERSION };

        opterr = 0;
        c = getopt_long(argc, argv, shorts, longs, NULL);
        if (c == HELP) {
                print_help(command);
                return end_parse(parse, fflush(stdout) == 0 ? STATUS_DONE : STATUS_FAILED);
        }
        if (c == VERSION)
                return end_parse(parse, command_print_version());
        if (c == ':')
                return end_parse(parse, command_misused(command, "%s needs an argument", argv[optind - 1]));
        if (c == '?') {
                if (optopt >= ' ' && optopt <= '~')
                        return end_parse(parse, command_misused(command, "unknown option -%c", optopt));
                return end_parse(parse, command_misused(command, "option %s is unknown, or takes no argument",
                                                        argv[optind - 1]));
        }
        for (size_t i = 0; c > 0 && i < count; i++)
                if (c == (int) i + 1 || (command->options[i].letter && c == command->options[i].letter)) {
                        parse->option = (int) i;
                        parse->argument = optarg;
                        return true;
                }

        words = argc - optind;
        if (words < command->words_min)
                return end_parse(parse, command_misused(command, "too few arguments, as it takes %s", command->arguments));
        if (command->words_max >= 0 && words > command->words_max)
                return end_parse(parse, command_misused(command, "too many arguments: %s",
                                                        argv[optind + command->words_max]));
        return end_parse(parse, -1);
}

int command_failed(const Reason *reason) {
        fprintf(stderr, "virtbackupfs: %s\n", reason->text);
        return STATUS_FAILED;
}

int command_misused(const Command *command, const char *format, ...) {
        Reason reason;
        char text[REASON_MAX];
        va_list args;

        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        fail(&reason, -EINVAL, "%s%s%s: see 'virtbackupfs %s%s--help'", command ? command->name : "", command ? ": " : "",
             text, command ? command->name : "", command ? " " : "");
        fprintf(stderr, "virtbackupfs: %s\n", reason.text);
        return STATUS_USAGE;
}

void command_warn(const char *line) {
        fprintf(stderr, "virtbackupfs: warning: %s\n", line);
}

void command_tell(const char *line) {
        fprintf(stderr, "virtbackupfs: %s\n", line);
}

int command_print(const char *text, size_t length) {
        Reason reason;

        if (fwrite(text, 1, length, stdout) == length && fflush(stdout) == 0)
                return STATUS_DONE;
        fail_errno(&reason, -errno, "cannot write the output");
        return command_failed(&reason);
}

int command_print_made(const Command *command, int argc, char **argv, CommandMaker make) {
        CLEANUP(freep) char *text = NULL;
        CommandParse parse = { 0 };
        bool json = false;
        size_t length;
        Reason reason;

        while (command_parse(command, argc, argv, &parse))
                json = true;
        if (parse.status >= 0)
                return parse.status;
        if (make(argv[optind], argv[optind + 1], json, &text, &length, &reason) < 0)
                return command_failed(&reason);
        return command_print(text, length);
}
