/* fs/reader.h - answers reads of disks.
 *
 * Holes are answered from one area of zeroes that nobody writes to; data is decompressed straight into the thread's
 * scratch buffer. Threads: any. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "chain/chain.h"
#include "tree.h"

/* The bytes of [offset, offset + size), clipped to the disk: ret_bytes is the thread's SCRATCH_ANSWER or the zeroes. All
 * of the clipped range or an error: a short answer would be taken for the end of the file. item is named where it is
 * logged. */
int reader_read(Chain *chain, const Item *item, size_t size, uint64_t offset, const void **ret_bytes, size_t *ret_length);
