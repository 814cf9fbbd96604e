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
