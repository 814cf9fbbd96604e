/* fs/reader.h - answers reads of disks, and lends each thread the memory for its answers.
 *
 * Holes are answered from one area of zeroes that nobody writes to; data is decompressed straight into a buffer that the
 * thread keeps, which costs less than the page faults of a fresh one. Threads: any. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "chain/chain.h"
#include "tree.h"

/* A buffer of this thread, aligned to pages, good until the thread asks again; NULL without memory. */
void *reader_buffer(size_t size);

/* The bytes of [offset, offset + size), clipped to the disk: ret_bytes is the thread's buffer or the zeroes. All of the
 * clipped range or an error: a short answer would be taken for the end of the file. item is named where it is logged. */
int reader_read(Chain *chain, const Item *item, size_t size, uint64_t offset, const void **ret_bytes, size_t *ret_length);
