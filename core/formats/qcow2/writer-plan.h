/* core/formats/qcow2/writer-plan.h - where things lie in an image that is written, and its header.
 *
 * Version 3, clusters of 64 KiB, reference counts of 16 bits. From the file's beginning: the header, the table of blocks of
 * reference counts, the L1 table, the first of these blocks. Each further block is the first of the clusters that it counts.
 * Everything else lies in the order in which it was written.
 * Plain values. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "util/reason.h"

#define WRITER_CLUSTER_BITS 16
#define WRITER_CLUSTER (1u << WRITER_CLUSTER_BITS) /* bytes */
#define WRITER_ENTRIES (WRITER_CLUSTER / 8)        /* of an L2 table */
#define WRITER_COUNTS (WRITER_CLUSTER / 2)         /* clusters that one block counts */

typedef struct WriterPlan {
        uint64_t disk_size;    /* bytes, as the image says: whole sectors */
        uint64_t clusters;     /* of the disk */
        uint64_t tables;       /* entries of the L1 table */
        const char *backing;   /* borrowed; NULL: none */
        /* Clusters of the file: */
        uint64_t blocks_start; /* of the table of blocks of reference counts */
        uint64_t blocks_count;
        uint64_t l1_start, l1_count;
        uint64_t first_block;
        uint64_t start;        /* of what is given out */
        uint64_t expected;     /* all that is needed where nothing is lost */
        uint64_t limit;        /* more cannot be counted */
} WriterPlan;

/* -EFBIG: more than an image of such clusters can have; -ENAMETOOLONG. */
int writer_plan_make(uint64_t disk_size, const char *backing, WriterPlan *ret, Reason *reterr);

/* The first cluster of the file. An image that is not finished says that its reference counts are wrong. */
void writer_plan_header(const WriterPlan *plan, bool finished, unsigned char *ret);

/* Where a block of reference counts lies. */
static inline uint64_t writer_plan_block(const WriterPlan *plan, uint64_t number) {
        return number == 0 ? plan->first_block : number * WRITER_COUNTS;
}
