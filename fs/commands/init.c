/* fs/commands/init.c - makes an empty repository. */
#include "command-line/command.h"
#include "repository/repository.h"

static int run(const Command *command, int argc, char **argv) {
        CommandParse parse = { 0 };
        Reason reason;

        while (command_parse(command, argc, argv, &parse))
                ;
        if (parse.status >= 0)
                return parse.status;
        if (repository_init(argv[optind], &reason) < 0)
                return command_failed(&reason);
        return STATUS_DONE;
}

const Command command_init = {
        .name = "init",
        .arguments = "REPO",
        .summary = "make an empty repository",
        .words_min = 1,
        .words_max = 1,
        .run = run,
};
