/* fs/commands/add.c - registers a VM: where its backups are taken from. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "command-line/command.h"
#include "command-line/source-words.h"
#include "repository/vm.h"
#include "sources/source.h"

enum { OPTION_INCLUDE, OPTION_EXCLUDE };

static const CommandOption options[] = {
        [OPTION_INCLUDE] = { "include", 0, "DISK", "capture this disk alone, or with others named so" },
        [OPTION_EXCLUDE] = { "exclude", 0, "DISK", "leave this disk out; may be repeated" },
        { 0 },
};

static void warn(void *context, const char *line) {
        (void) context;
        command_warn(line);
}

/* The VM that had this name and is registered no longer: NULL where there is none, or where it has no points. */
static int find_former(Repository *repository, const char *name, Vm **ret, Reason *reterr) {
        char newest[POINT_NAME_MAX];
        int rc = vm_open(repository, name, ret, reterr);

        if (rc < 0)
                return rc == -ENOENT ? 0 : rc;
        if (vm_source(*ret) || vm_damage(*ret) || vm_newest_point(*ret, newest, NULL) < 0 || !*newest)
                *ret = vm_free(*ret);
        return 0;
}

static int add(const char *path, const char *name, const char *uri, const VmDisks *disks, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(vm_freep) Vm *former = NULL;
        CLEANUP(source_freep) Source *source = NULL;
        CLEANUP(freep) char *uuid = NULL, *settled = NULL;
        SourceOwner owner = { .source = uri, .vm = name, .warn = warn };
        int rc;

        if (!vm_name_is_valid(name))
                return fail(reterr, -EINVAL, "\"%s\" cannot be a VM's name: " VM_NAME_RULE, name);
        rc = repository_open(path, REPOSITORY_CACHE_DEFAULT, &repository, reterr);
        if (rc == 0)
                rc = find_former(repository, name, &former, reterr);
        if (rc < 0)
                return rc;
        owner.former_uuid = former ? vm_uuid(former) : NULL;
        owner.repository = repository_uuid(repository);
        rc = source_open(&owner, &source, reterr);
        if (rc < 0)
                return rc;
        rc = source_identify(source, &uuid, reterr);
        if (rc == 0)
                rc = source_settle(source, &settled, reterr);
        if (rc < 0)
                return rc;
        return vm_add(repository, name, uuid, settled, disks, reterr);
}

/* A directory, in which another tool stores, in the place of a source, or what can be meant as nothing else. */
static bool is_path(const char *word) {
        struct stat st;

        return (strchr(word, '/') && !strstr(word, "://") && !strchr(word, '=')) || stat(word, &st) == 0;
}

static int add_directory(const char *path, const char *name, const char *directory, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        struct stat st;
        int rc = repository_open(path, REPOSITORY_CACHE_DEFAULT, &repository, reterr);

        if (rc == 0 && stat(directory, &st) == 0 && S_ISREG(st.st_mode))
                return fail(reterr, -ENOTDIR, "%s is a file: the image of a disk is written DISK=file:PATH, and what "
                            "another tool has stored is added by its directory", directory);

        return rc < 0 ? rc : vm_add_directory(repository, name, directory, reterr);
}

static void disks_clear(VmDisks *disks) {
        strings_free(&disks->include);
        strings_free(&disks->exclude);
}

static int run(const Command *command, int argc, char **argv) {
        CLEANUP(disks_clear) VmDisks disks = { 0 };
        CLEANUP(freep) char *source = NULL;
        CommandParse parse = { 0 };
        Reason reason;
        int rc = 0;

        while (rc == 0 && command_parse(command, argc, argv, &parse))
                rc = strings_add(parse.option == OPTION_INCLUDE ? &disks.include : &disks.exclude, parse.argument);
        if (rc < 0) {
                fail_oom(&reason);
                return command_failed(&reason);
        }
        if (parse.status >= 0)
                return parse.status;
        if (argc - optind == 3 && is_path(argv[optind + 2])) {
                if (disks.include.count > 0 || disks.exclude.count > 0)
                        return command_misused(command, "what another tool has stored is shown whole");
                rc = add_directory(argv[optind], argv[optind + 1], argv[optind + 2], &reason);
                return rc < 0 ? command_failed(&reason) : STATUS_DONE;
        }
        for (int i = optind + 2; rc == 0 && i < argc; i++)
                rc = source_words_take(argv[i], &source, &reason);
        if (rc == 0)
                rc = add(argv[optind], argv[optind + 1], source ?: "", &disks, &reason);
        if (rc < 0)
                return command_failed(&reason);
        return STATUS_DONE;
}

const Command command_add = {
        .name = "add",
        .arguments = "REPO VM SOURCE…",
        .summary = "register a VM; SOURCE: qemu:///system, qmp:///SOCKET, DISK=URI…, or another tool's directory",
        .options = options,
        .words_min = 3,
        .words_max = -1,
        .run = run,
};
