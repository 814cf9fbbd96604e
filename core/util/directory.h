/* core/util/directory.h - directories: made, listed, synced, deleted.
 *
 * Paths are relative to a directory descriptor and never lead out of it (open_beneath()). */
#pragma once

#include "util/reason.h"
#include "util/strings.h"

/* mkdir (mode 0700) and syncing of the parent directory; -EEXIST is passed on. path has no slash at its end. */
int make_directory(int dir_fd, const char *path, Reason *reterr);

/* 0 also where the file system cannot sync directories: nothing more can be done there. */
int sync_directory(int dir_fd, const char *path);
int sync_directory_fd(int fd);

/* Deletes a directory and all that is in it, symbolic links as such; 0 where it is not there. */
int remove_tree(int dir_fd, const char *path, Reason *reterr);

/* The names in a directory, sorted, without those that begin with a dot. */
int list_directory(int dir_fd, const char *path, Strings *ret, Reason *reterr);
/* Calls see for every name in a directory, in any order, until it returns less than 0. */
int scan_directory(int dir_fd, const char *path, int (*see)(void *context, const char *name), void *context, Reason *reterr);

/* The directory that a path's last component lies in, open for reading, and that component, which is part of path. -EINVAL:
 * there is none. */
int directory_open_parent(int dir_fd, const char *path, int *ret_fd, const char **ret_name);
