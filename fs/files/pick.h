/* fs/files/pick.h - asks on the terminal whose files are wanted: of which repository, VM, point and partition, and
 * where to show them. */
#pragma once

#include "util/reason.h"

/* The caller frees them. -ECANCELED where the answers end. */
int files_pick(char **ret_repository, char **ret_path, char **ret_directory, Reason *reterr);
