/* fs/commands/mount.c - mounts a repository; also as mount(8) and its helpers call it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "command-line/command.h"
#include "mount/background.h"
#include "mount/daemon.h"
#include "mount/session.h"

enum { OPTION_FOREGROUND, OPTION_OPTIONS, OPTION_SLOPPY, OPTION_NO_MTAB, OPTION_VERBOSE, OPTION_TYPES };

#define OPTIONS_HELP "ro, allow_other, uid=, gid=, umask=, cache-size=, cache_dir=, cache_dir_size=,\n"       \
                     "                               direct_io, kernel_cache, max_threads=, hold=, and the kernel's"

static const CommandOption options[] = {
        [OPTION_FOREGROUND] = { "foreground", 'f', NULL, "stay in the foreground" },
        [OPTION_OPTIONS] = { "options", 'o', "OPTIONS", OPTIONS_HELP },
        /* What mount(8) may hand on to its helpers, and means nothing here. */
        [OPTION_SLOPPY] = { "sloppy", 's', NULL, NULL },
        [OPTION_NO_MTAB] = { "no-mtab", 'n', NULL, NULL },
        [OPTION_VERBOSE] = { "verbose", 'v', NULL, NULL },
        [OPTION_TYPES] = { "types", 't', "TYPE", NULL },
        { 0 },
};

/* Goes on in the background, or not: the status to exit with. */
static int start(const char *repository, const char *mountpoint, const MountOptions *mount_options, bool foreground) {
        Reason reason = REASON_INIT;
        int ready_fd = -1, rc, status;

        if (!foreground) {
                rc = background_start(&ready_fd, &status);
                if (rc == 1)
                        return status;
                if (rc < 0) {
                        fail_errno(&reason, rc, "cannot go to the background");
                        return command_failed(&reason);
                }
        }
        rc = daemon_run(repository, mountpoint, mount_options, ready_fd, &reason);
        return rc < 0 ? command_failed(&reason) : STATUS_DONE;
}

static int run(const Command *command, int argc, char **argv) {
        CLEANUP(mount_options_clear) MountOptions mount_options = mount_options_default();
        CLEANUP(freep) char *repository = NULL;
        CLEANUP(freep) char *mountpoint = NULL;
        CommandParse parse = { 0 };
        Reason reason = REASON_INIT;
        bool foreground = false;

        while (command_parse(command, argc, argv, &parse))
                switch (parse.option) {
                case OPTION_FOREGROUND:
                        foreground = true;
                        break;
                case OPTION_OPTIONS:
                        if (mount_options_add(&mount_options, parse.argument, &reason) < 0)
                                return command_misused(command, "%s", reason.text);
                        break;
                }
        if (parse.status >= 0)
                return parse.status;
        repository = realpath(argv[optind], NULL);
        if (!repository) {
                fail_errno(&reason, -errno, "cannot open the repository %s", argv[optind]);
                return command_failed(&reason);
        }
        if (mountpoint_resolve(argv[optind + 1], repository, &mountpoint, &reason) < 0)
                return command_failed(&reason);
        return start(repository, mountpoint, &mount_options, foreground);
}

const Command command_mount = {
        .name = "mount",
        .arguments = "REPO MOUNTPOINT",
        .summary = "show the repository as files; umount or fusermount3 -u ends it",
        .options = options,
        .words_min = 2,
        .words_max = 2,
        .run = run,
};
