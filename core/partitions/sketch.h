/* core/partitions/sketch.h - of a disk, what libblkid looks at: a sparse file in memory.
 *
 * libblkid reads from a descriptor, and a disk of ours has none that this process could read without waiting for itself. So
 * the places where tables and superblocks lie are copied into a memory file as long as the disk, or a part of it, and the
 * rest is a hole in it. Where a superblock leads elsewhere (to the first records of NTFS), the position of the descriptor
 * after a run tells: the place is copied as well, and libblkid runs again: sketch_follow().
 * Whatever a hostile disk says, no more than SKETCH_LIMIT bytes are copied.
 * Threads: one at a time. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "partitions/disk-bytes.h"
#include "util/cleanup.h"
#include "util/reason.h"

#define SKETCH_LIMIT (32u << 20) /* bytes */

typedef struct Sketch Sketch;

/* Of [start, start + size), which lies within the disk, of which what is in it is borrowed. Offsets in the sketch begin at
 * start. */
int sketch_new(const DiskBytes *disk, uint64_t start, uint64_t size, Sketch **ret, Reason *reterr);
Sketch *sketch_free(Sketch *sketch); /* always NULL */
DEFINE_CLEANUP(Sketch, sketch_free)

int sketch_fd(const Sketch *sketch);
uint64_t sketch_size(const Sketch *sketch);

/* Copies what of the range is not there yet; what passes the end is left out. 1: something came; 0: it was all there, or
 * cannot be had, which sketch_trouble() tells; -ENOMEM. */
int sketch_add(Sketch *sketch, uint64_t start, uint64_t length);

/* The same for the place where the descriptor was read last. */
int sketch_follow(Sketch *sketch);

/* Why not all is there that was wanted; NULL: it is. */
const char *sketch_trouble(const Sketch *sketch);
