/* fs/command-line/command.h - the commands of the program: one table, one file each.
 *
 * A command parses its words with getopt_long (through command_parse(), which answers --help, --version and wrong options),
 * does its work through core/, and returns an exit status. Errors are one line on stderr: "virtbackupfs: what: why". */
#pragma once

#include <getopt.h>
#include <stdbool.h>
#include <stddef.h>

#include "util/reason.h"

enum {
        STATUS_DONE = 0,
        STATUS_FAILED = 1,
        STATUS_USAGE = 2,
        STATUS_FINDINGS = 3, /* done, but something was found */
};

typedef struct CommandOption {
        const char *name;     /* long name */
        char letter;          /* short one, or 0 */
        const char *argument; /* "DIR"; NULL: a flag */
        const char *help;     /* one line; NULL: not shown */
} CommandOption;

typedef struct Command {
        const char *name;
        const char *arguments;        /* "REPO [PATH]" */
        const char *summary;          /* one line; NULL: internal, not shown */
        const CommandOption *options; /* ends with a NULL name; NULL: only those of all commands */
        int words_min, words_max;     /* words besides options; words_max < 0: any number */
        int (*run)(const struct Command *command, int argc, char **argv);
} Command;

extern const Command command_add, command_capture, command_diff, command_export, command_files, command_forget;
extern const Command command_guardian;
extern const Command command_import, command_init, command_list, command_map, command_mount, command_recover;
extern const Command command_restore;

/* Walks the options: call it until it is false. *ret is the index in command->options, *ret_argument its argument.
 * Answers --help, --version and wrong usage itself by ending the walk with *ret_status >= 0, which the command then returns.
 * When all options are done, optind is the first of the remaining words, whose number has been checked. */
typedef struct CommandParse {
        int option;           /* index in command->options */
        char *argument;       /* of that option, in argv */
        int status;           /* when the walk has ended: < 0: go on; else return it */
} CommandParse;
bool command_parse(const Command *command, int argc, char **argv, CommandParse *parse);

/* "virtbackupfs: …" on stderr. Those that return a number: the status to exit with. */
int command_failed(const Reason *reason);
int command_misused(const Command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));
int command_print_version(void);
void command_warn(const char *line);
void command_tell(const char *line);

/* Writes to stdout, and notices where that fails (a full disk, a closed pipe). */
int command_print(const char *text, size_t length);

/* All of a command that makes a text of a repository and a path in it (NULL where there is none), and whose one option is
 * --json. The text's length counts: it has no NUL at its end. */
typedef int (*CommandMaker)(const char *repository, const char *path, bool json, char **ret, size_t *ret_length,
                            Reason *reterr);
int command_print_made(const Command *command, int argc, char **argv, CommandMaker make);
