/* fs/commands/guardian.c - the process that looks after a capture (capture/guardian.h); started by it alone. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "capture/guardian.h"
#include "command-line/command.h"

/* A descriptor's number, if there is such a descriptor. */
static int parse_descriptor(const char *text) {
        char *end;
        long number = strtol(text, &end, 10);

        if (end == text || *end || number < 0 || number > 1 << 20 || fcntl((int) number, F_GETFD) < 0)
                return -EBADF;
        return (int) number;
}

static int run(const Command *command, int argc, char **argv) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(vm_freep) Vm *vm = NULL;
        CommandParse parse = { 0 };
        Reason reason;
        int socket_fd, lock_fd;

        while (command_parse(command, argc, argv, &parse))
                ;
        if (parse.status >= 0)
                return parse.status;
        socket_fd = parse_descriptor(argv[optind + 2]);
        lock_fd = parse_descriptor(argv[optind + 3]);
        if (socket_fd < 0 || lock_fd < 0)
                return command_misused(command, "a capture starts this, nobody else");
        if (repository_open(argv[optind], REPOSITORY_CACHE_DEFAULT, &repository, &reason) < 0)
                return command_failed(&reason);
        if (vm_open(repository, argv[optind + 1], &vm, &reason) < 0)
                return command_failed(&reason);
        return guardian_main(vm, socket_fd, lock_fd) == 0 ? STATUS_DONE : STATUS_FAILED;
}

const Command command_guardian = {
        .name = "guardian",
        .arguments = "REPO VM SOCKET LOCK",
        .words_min = 4,
        .words_max = 4,
        .run = run,
};
