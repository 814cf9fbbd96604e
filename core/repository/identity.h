/* core/repository/identity.h - tells one thing from another that takes its name later, without reading either. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

/* Of a file as stat(2) tells it; or, of what is no single file, any numbers that are others when it is another. */
typedef struct Identity {
        uint64_t device, inode, size;
        struct timespec modified, changed;
} Identity;

Identity identity_of(const struct stat *st);
/* Of a file below a directory; a negative errno. */
int identity_of_file(int dir_fd, const char *path, Identity *ret);
bool identity_is_same(const Identity *a, const Identity *b);
