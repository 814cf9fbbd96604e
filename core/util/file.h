/* core/util/file.h - small files, read and written whole.
 *
 * Paths are relative to a directory descriptor and never lead out of it (open_beneath()). */
#pragma once

#include <stddef.h>

#include "util/cleanup.h"
#include "util/reason.h"

/* Reads a file of at most limit bytes; the text gets a NUL behind it that ret_length does not count.
 * -EFBIG where it is longer. The caller frees *ret. */
int read_file(int dir_fd, const char *path, size_t limit, char **ret, size_t *ret_length, Reason *reterr);

/* Makes the file with this content, synced, under the name or not at all (mode 0600).
 * create_file: -EEXIST where the name is taken (one link(2), never a replacement).
 * replace_file: replaces what was there. Both sync the directory before they return. */
int create_file(int dir_fd, const char *path, const void *content, size_t length, Reason *reterr);
int replace_file(int dir_fd, const char *path, const void *content, size_t length, Reason *reterr);
