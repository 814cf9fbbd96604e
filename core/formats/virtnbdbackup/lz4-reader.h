/* core/formats/virtnbdbackup/lz4-reader.h - reads anywhere in LZ4 frames whose blocks are linked.
 *
 * A block can only be unpacked when the 64 KiB before it are known. So a frame is taken in pieces; the first pass over it
 * leaves before each piece a place to go on from in the cache, and so it is never unpacked from its start again while they
 * last. Pieces that are asked for in parts can be kept as well.
 * Threads: any. */
#pragma once

#include "formats/virtnbdbackup/cursor.h"
#include "formats/virtnbdbackup/memory.h"

/* length bytes at offset in the run, within it. keeps: what lies near will be read as well, and what is unpacked is kept for
 * that. -EIO where it is damaged; what lies before the damage stays readable. */
int lz4_read(ByteStore *bytes, const Memory *memory, const Run *run, void *buffer, size_t length, uint64_t offset,
             bool keeps, Reason *reterr);
