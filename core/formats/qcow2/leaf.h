/* core/formats/qcow2/leaf.h - what the tables of a qcow2 image say of a piece of the disk, decoded and checked.
 *
 * A leaf tells of up to a few thousand clusters, whatever the size of an L2 table is: a part of one, or several. Neighbours
 * in the same state whose bytes follow each other in the file are one run, so that images of few changes take little memory.
 * leaf_load() is where the bytes of tables come in: after it what a run of data names lies within the file. Reference
 * counts are never looked at.
 * Threads: a leaf is immutable. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/byte-store.h"
#include "formats/qcow2/header.h"
#include "util/reason.h"

typedef enum RunKind {
        RUN_ABSENT,     /* the backing file has it */
        RUN_ZERO,
        RUN_DATA,
        RUN_COMPRESSED, /* one cluster */
        RUN_DAMAGED,    /* what the tables say cannot be */
} RunKind;

typedef struct Run {
        uint64_t host;        /* data, compressed: offset in the file; damaged: which of leaf_damage()'s words */
        uint32_t unit;        /* where it begins; it ends where the next one does */
        uint32_t kind : 3;    /* a RunKind */
        uint32_t length : 29; /* compressed: stored bytes */
} Run;

typedef struct Leaf {
        uint64_t start;     /* byte on the disk that unit 0 begins with */
        uint32_t unit_bits; /* of a cluster, or of a subcluster where it has those */
        uint32_t count;     /* runs; there is one more behind them, where the leaf ends */
        bool damaged;       /* a table could not be read, which may be better next time */
        Run runs[];
} Leaf;

/* What tables are read with. */
typedef struct Qcow2Tables {
        const Qcow2Header *header;
        Qcow2State state;
        ByteStore *image;     /* has the tables */
        uint64_t data_length; /* bytes of the file that has the data */
} Qcow2Tables;

/* Bytes of the disk that a leaf tells of, a power of 2; the last one's end is the disk's. */
uint64_t leaf_span(const Qcow2Header *header);

/* Leaf number index, which must begin within the disk. ret_cost: bytes of memory. Fails only where nothing can be told. */
int leaf_load(const Qcow2Tables *tables, uint64_t index, Leaf **ret, size_t *ret_cost, Reason *reterr);

/* Index of the run that holds the byte of the disk, which must be in the leaf. O(log n). */
uint32_t leaf_find(const Leaf *leaf, uint64_t offset);

/* Where the run begins on the disk; of the one behind the last: where the leaf ends, which may be past the disk's end. */
static inline uint64_t leaf_run_start(const Leaf *leaf, uint32_t run) {
        return leaf->start + ((uint64_t) leaf->runs[run].unit << leaf->unit_bits);
}

const char *leaf_damage(const Run *run);
