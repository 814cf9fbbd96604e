/* core/formats/qcow2/writer-space.h - the clusters of an image that is written: which are given out, which are in use.
 *
 * They are given out one behind the other and never twice, so that what is read from a new one is zeroes, whatever is lost.
 * What lies before `end` is the file's; on file systems that let one write at a time extend a file or go into a hole, room
 * is set aside a good part ahead. Reference counts are written at the end, from a bit for each cluster.
 * Threads: the caller sees to it that one at a time is here. */
#pragma once

#include "formats/qcow2/writer-plan.h"
#include "util/direct.h"

typedef struct WriterSpace {
        const WriterPlan *plan; /* borrowed, as the others */
        const DirectFile *file;
        const char *name;
        uint64_t next;          /* the first that was never given out */
        uint64_t end;           /* of the file */
        bool ahead;             /* room is set aside */
        bool lossy;             /* some that were given out are not in use */
        uint64_t *used;         /* bits */
        uint64_t capacity;      /* how many */
} WriterSpace;

/* Of a file of this many bytes: everything that has its place by the plan is in use. -ENOSPC; what was filled in is cleared
 * by the caller in any case. */
int writer_space_begin(const WriterPlan *plan, const DirectFile *file, const char *name, uint64_t file_size,
                       WriterSpace *ret, Reason *reterr);
void writer_space_clear(WriterSpace *space);

/* What is found to be in use: false where it cannot be. */
bool writer_space_claim(WriterSpace *space, uint64_t cluster);
/* Ends the file behind what was given out. */
int writer_space_trim(WriterSpace *space, Reason *reterr);

/* Gives out up to `wanted` clusters that follow each other, at least one. They are not in use yet. */
int writer_space_take(WriterSpace *space, uint64_t wanted, uint64_t *ret_first, uint64_t *ret_count, Reason *reterr);
void writer_space_use(WriterSpace *space, uint64_t cluster);
void writer_space_drop(WriterSpace *space, uint64_t cluster); /* not in use any more */

/* Reference counts of all that was given out. What is not in use is given back to the file system. */
int writer_space_count(WriterSpace *space, Reason *reterr);
