/* tests/bench/bare-lz4.h - a raw file as independent LZ4 blocks of 64 KiB, with nothing around them: no checksums, no
 * chain, no cache. What no reader of such blocks can pass.
 *
 * Threads: any may read at once. Errors are negative errno. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

int bare_lz4_pack(const char *raw, const char *store);

/* One in a process. */
int bare_lz4_open(const char *store);
uint64_t bare_lz4_size(void);
/* Bytes read, fewer at the end; no more of a block is decompressed than what lies before the range's end. */
ssize_t bare_lz4_read(void *buffer, size_t length, uint64_t offset);
/* As lseek(2) with SEEK_DATA and SEEK_HOLE, in blocks. */
off_t bare_lz4_seek(off_t offset, int whence);
