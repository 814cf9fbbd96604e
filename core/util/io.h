/* core/util/io.h - whole reads and writes, and files that are there whole or not at all.
 *
 * Paths are relative to a directory descriptor and never lead out of it: open_beneath() refuses "..", absolute
 * paths and symbolic links (openat2(2), RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS). */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/cleanup.h"
#include "util/reason.h"

/* As openat(2) with O_CLOEXEC added. A negative errno on failure; -ELOOP for a symbolic link, -EXDEV for what would lead
 * out. */
int open_beneath(int dir_fd, const char *path, int flags, mode_t mode);

/* All length bytes, or a negative errno; -ENODATA where the file ends before. */
int pread_whole(int fd, void *buffer, size_t length, uint64_t offset);
int pwrite_whole(int fd, const void *buffer, size_t length, uint64_t offset);
int write_whole(int fd, const void *buffer, size_t length);

/* Reads a file of at most limit bytes; the text gets a NUL behind it that ret_length does not count.
 * -EFBIG where it is longer. The caller frees *ret. */
int read_file(int dir_fd, const char *path, size_t limit, char **ret, size_t *ret_length, Reason *reterr);

/* Makes the file with this content, synced, under the name or not at all (mode 0600).
 * create_file: -EEXIST where the name is taken (one link(2), never a replacement).
 * replace_file: replaces what was there. Both sync the directory before they return. */
int create_file(int dir_fd, const char *path, const void *content, size_t length, Reason *reterr);
int replace_file(int dir_fd, const char *path, const void *content, size_t length, Reason *reterr);

/* mkdir (mode 0700) and syncing of the parent directory; -EEXIST is passed on. path has no slash at its end. */
int make_directory(int dir_fd, const char *path, Reason *reterr);
int sync_directory(int dir_fd, const char *path);

/* Deletes a directory and all that is in it, symbolic links as such; 0 where it is not there. */
int remove_tree(int dir_fd, const char *path, Reason *reterr);

/* The names in a directory, sorted, without those that begin with a dot. The caller frees with strings_free(). */
typedef struct Strings {
        char **items;
        size_t count;
} Strings;
int list_directory(int dir_fd, const char *path, Strings *ret, Reason *reterr);
/* Calls see for every name in a directory, in any order, until it returns less than 0. */
int scan_directory(int dir_fd, const char *path, int (*see)(void *context, const char *name), void *context, Reason *reterr);
void strings_free(Strings *strings);
/* Appends a copy. Lists grow by this alone. */
int strings_add(Strings *strings, const char *text);
