/* fs/command-add.c - registers a VM: where its backups are taken from. */
#include <errno.h>

#include "command.h"
#include "repository/vm.h"
#include "source-words.h"
#include "sources/source.h"

static void warn(void *context, const char *line) {
        (void) context;
        command_warn(line);
}

static int add(const char *path, const char *name, const char *uri, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(source_freep) Source *source = NULL;
        CLEANUP(freep) char *uuid = NULL, *settled = NULL;
        SourceOwner owner = { .source = uri, .vm = name, .warn = warn };
        int rc;

        if (!vm_name_is_valid(name))
                return fail(reterr, -EINVAL, "\"%s\" cannot be a VM's name", name);
        rc = repository_open(path, REPOSITORY_CACHE_DEFAULT, &repository, reterr);
        if (rc < 0)
                return rc;
        owner.repository = repository_uuid(repository);
        rc = source_open(&owner, &source, reterr);
        if (rc < 0)
                return rc;
        rc = source_identify(source, &uuid, reterr);
        if (rc == 0)
                rc = source_settle(source, &settled, reterr);
        if (rc < 0)
                return rc;
        return vm_add(repository, name, uuid, settled, reterr);
}

static int run(const Command *command, int argc, char **argv) {
        CLEANUP(freep) char *source = NULL;
        CommandParse parse = { 0 };
        Reason reason;
        int rc = 0;

        while (command_parse(command, argc, argv, &parse))
                ;
        if (parse.status >= 0)
                return parse.status;
        for (int i = optind + 2; rc == 0 && i < argc; i++)
                rc = source_words_take(argv[i], &source, &reason);
        if (rc == 0)
                rc = add(argv[optind], argv[optind + 1], source ?: "", &reason);
        if (rc < 0)
                return command_failed(&reason);
        return STATUS_DONE;
}

const Command command_add = {
        .name = "add",
        .arguments = "REPO VM SOURCE…",
        .summary = "register a VM; SOURCE is a libvirt URI such as qemu:///system, or DISK=URI for each disk",
        .words_min = 3,
        .words_max = -1,
        .run = run,
};
