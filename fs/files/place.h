/* fs/files/place.h - the directory in which the file systems of a point are shown, and what has to be taken down again.
 *
 *     DIR/.virtbackupfs/         it is one of ours
 *     DIR/.virtbackupfs/tree     where the repository is mounted
 *     DIR/.virtbackupfs/made     DIR was made by us
 *     DIR/.virtbackupfs/watched  a process stays with it, and holds a lock on .virtbackupfs as long as it lives
 *     DIR/vda1 …                 a file system each
 *
 * What is mounted stands in the kernel's list: nothing else has to be remembered, and what a crash left is taken down by
 * that. Threads: one. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "util/reason.h"

typedef struct FilesPlace FilesPlace;

/* Makes the directory, or takes an empty one, or one that a crash left, which *ret_cleared tells. watched:
 * files_place_free() is only called at the end. -EEXIST where it shows something already; -ENOTEMPTY where it is
 * somebody's. */
int files_place_open(const char *directory, bool watched, FilesPlace **ret, bool *ret_cleared, Reason *reterr);
/* Leaves what is mounted. Always NULL. */
FilesPlace *files_place_free(FilesPlace *place);

const char *files_place_path(const FilesPlace *place); /* absolute */
const char *files_place_tree(const FilesPlace *place);

/* Makes the directory of a file system. The caller frees *ret, its path. */
int files_place_add(FilesPlace *place, const char *name, char **ret, Reason *reterr);

/* Unmounts all that is mounted below the directory and removes what was made. -EINVAL where it is none of ours; -EBUSY where
 * something is in use. */
int files_place_end(const char *directory, Reason *reterr);
