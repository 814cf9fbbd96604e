/* core/capture/feed.h - what there is to do for a disk, chunk by chunk in the order of the disk. The plan is made window by
 * window as it is needed, so that memory does not grow with the disk. Threads: one at a time. */
#pragma once

#include "capture/outline.h"
#include "capture/plan.h"
#include "capture/readers.h"
#include "chain/chain.h"

#define WINDOW_SIZE (1ull << 30) /* bytes of a disk that are planned at once; a multiple of every block size */

/* A part of a plan's item. */
typedef struct Chunk {
        uint64_t start, length; /* bytes: at most a chunk, but for zeroes */
        bool zero;
} Chunk;

typedef struct Feed {
        const PlanDisk *disk; /* borrowed, as readers and parent are */
        Readers *readers;
        Outline *outline;     /* borrowed; or NULL */
        size_t chunk_size;    /* bytes; a multiple of the block size */
        PlanParent parent;
        Plan plan;
        size_t item;          /* the next of the plan, and how far it has been given out */
        uint64_t item_done;
        uint64_t window_end;  /* planned up to here */
        uint64_t parent_data; /* bytes that stay the parent's and are data there, up to there */
        SourceExtents source_extents;
} Feed;

/* parent NULL: all of the disk is taken. outline NULL: the source is asked for extents. */
void feed_init(Feed *feed, const PlanDisk *disk, Chain *parent, Readers *readers, Outline *outline, size_t chunk_size);
void feed_clear(Feed *feed);

/* 1 and the next chunk, 0 at the end. */
int feed_next(Feed *feed, Chunk *ret, Reason *reterr);
