/* fs/mount/daemon.h - a mounted repository, from opening it to its end. */
#pragma once

#include <stdbool.h>

#include "mount/mount-options.h"
#include "util/reason.h"

/* Mounts and answers until it ends. ready_fd: see background.h; -1: stays in the foreground.
 * 0: it was mounted, and ended as it should. */
int daemon_run(const char *repository_path, const char *mountpoint, const MountOptions *options, int ready_fd,
               Reason *reterr);
