/* core/util/direct.h - reads and writes of a file that go around the page cache where they can.
 *
 * What is written once and not read again costs more in the page cache than on the disk. Buffers and offsets begin at
 * multiples of DIRECT_GRAIN; a length may be any: what is left of it goes by way of the page cache. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define DIRECT_GRAIN 4096u /* bytes */

typedef struct DirectFile {
        int fd;        /* by way of the page cache */
        int direct_fd; /* around it; -1: the file system does not know how */
} DirectFile;

/* As pread_whole() and pwrite_whole(). */
int direct_read(const DirectFile *file, void *buffer, size_t length, uint64_t offset);
int direct_write(const DirectFile *file, const void *buffer, size_t length, uint64_t offset);

/* Gives room to a part of the file, and makes the file as long where it is not, for writes that go side by side: some file
 * systems let one at a time go into a hole or past the end. -EOPNOTSUPP: there is no such thing, or no use in it, as by way
 * of the page cache all of that is done later. -ENOSPC: some of it may have been done. */
int direct_set_aside(const DirectFile *file, uint64_t offset, uint64_t length);
