/* fs/mount/mountinfo.h - whether a file system is still mounted, as this mount namespace sees it.
 *
 * A process that was started while a mount existed may keep it alive in a namespace of its own: the kernel then does not
 * tell the daemon that it has been unmounted everywhere else. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "util/strings.h"

/* A descriptor of the list, on which poll(2) reports POLLPRI when it changes. A negative errno. */
int mountinfo_open(void);

/* Whether a file system with this device number is on the list; also true where the list cannot be read. */
bool mountinfo_has(int fd, dev_t device);

/* Where something is mounted at the directory or below it, in the order in which it was. directory: absolute, without
 * links. */
int mountinfo_below(const char *directory, Strings *ret);
