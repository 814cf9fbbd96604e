/* fs/commands/forget.c - ends a VM's registration, and what we made of it in the hypervisor. */
#include <errno.h>
#include <stdio.h>
#include <strings.h>

#include "command-line/command.h"
#include "repository/capture-lock.h"
#include "repository/points-lock.h"
#include "repository/vm.h"
#include "sources/source.h"

enum { OPTION_POINTS, OPTION_FORCE };

static const CommandOption options[] = {
        [OPTION_POINTS] = { "points", 0, NULL, "delete the stored points too" },
        [OPTION_FORCE] = { "force", 0, NULL, "go on where the hypervisor cannot be reached" },
        { 0 },
};

static void warn(void *context, const char *line) {
        (void) context;
        command_warn(line);
}

/* 0 too where there is nothing to delete: no such VM any more, or another one of its name. */
static int delete_checkpoints(Vm *vm, Reason *reterr) {
        CLEANUP(source_freep) Source *source = NULL;
        CLEANUP(freep) char *uuid = NULL;
        SourceOwner owner = {
                .source = vm_source(vm),
                .vm = vm_name(vm),
                .vm_uuid = vm_uuid(vm),
                .repository = repository_uuid(vm_repository(vm)),
                .warn = warn,
        };
        int rc;

        rc = source_open(&owner, &source, reterr);
        if (rc < 0)
                return rc;
        rc = source_identify(source, &uuid, reterr);
        if (rc == -ENOENT || rc == -ESTALE)
                return 0;
        if (rc < 0)
                return rc;
        if (strcasecmp(uuid, vm_uuid(vm)) != 0)
                return 0;
        rc = source_end_leftovers(source, reterr);
        if (rc < 0)
                return rc;
        return source_keep_checkpoints(source, NULL, 0, reterr);
}

static int forget(const char *path, const char *name, bool points, bool force, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(vm_freep) Vm *vm = NULL;
        CLEANUP(close_fd) int lock_fd = -1, points_fd = -1;
        Reason reason;
        int rc;

        rc = repository_open(path, REPOSITORY_CACHE_DEFAULT, &repository, reterr);
        if (rc < 0)
                return rc;
        rc = vm_open(repository, name, &vm, reterr);
        if (rc < 0)
                return rc;
        if (!vm_source(vm) && !vm_damage(vm) && !points)
                return fail(reterr, -EINVAL, "%s is not registered", name);
        rc = capture_lock_take(vm, &lock_fd, reterr);
        if (rc == 0 && points)
                rc = points_lock_take(vm, &points_fd, reterr);
        if (rc < 0)
                return rc;
        rc = vm_is_captured(vm) ? delete_checkpoints(vm, &reason) : 0;
        if (rc < 0 && !force)
                return fail(reterr, rc, "%s: its checkpoints cannot be deleted: %.*s (--force leaves them there)", name,
                            REASON_MAX / 2, reason.text);
        if (rc < 0) {
                char line[2 * REASON_MAX];

                snprintf(line, sizeof line, "%s: checkpoints named virtbackupfs-* may stay in the hypervisor: %s", name,
                         reason.text);
                command_warn(line);
        }
        return vm_forget(vm, points, reterr);
}

static int run(const Command *command, int argc, char **argv) {
        bool points = false, force = false;
        CommandParse parse = { 0 };
        Reason reason;

        while (command_parse(command, argc, argv, &parse)) {
                points |= parse.option == OPTION_POINTS;
                force |= parse.option == OPTION_FORCE;
        }
        if (parse.status >= 0)
                return parse.status;
        if (forget(argv[optind], argv[optind + 1], points, force, &reason) < 0)
                return command_failed(&reason);
        return STATUS_DONE;
}

const Command command_forget = {
        .name = "forget",
        .arguments = "REPO VM",
        .summary = "end a VM's registration and delete our checkpoints from the hypervisor",
        .options = options,
        .words_min = 2,
        .words_max = 2,
        .run = run,
};
