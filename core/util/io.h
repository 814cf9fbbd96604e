/* core/util/io.h - descriptors that do not lead out of a directory, and reads and writes that are whole. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/cleanup.h"

/* As openat(2) with O_CLOEXEC added, but "..", absolute paths and symbolic links are refused (openat2(2), RESOLVE_BENEATH
 * and RESOLVE_NO_SYMLINKS). A negative errno on failure; -ELOOP for a symbolic link, -EXDEV for what would lead out. */
int open_beneath(int dir_fd, const char *path, int flags, mode_t mode);

/* All length bytes, or a negative errno; -ENODATA where the file ends before. */
int pread_whole(int fd, void *buffer, size_t length, uint64_t offset);
int pwrite_whole(int fd, const void *buffer, size_t length, uint64_t offset);
int write_whole(int fd, const void *buffer, size_t length);
