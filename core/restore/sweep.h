/* core/restore/sweep.h - walks over a disk of a chain piece by piece, with several threads side by side.
 *
 * Pieces are given out in the order of the disk and begin and end at grains, but for the disk's end. Data are at most
 * SWEEP_PIECE long; zeroes may be longer, and what is too short to be worth a piece of its own belongs to the data around
 * it. What cannot be read counts as data. Memory: a piece or two for each thread. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "chain/chain.h"

#define SWEEP_PIECE (1u << 20)            /* bytes */
#define SWEEP_ZERO_MAX (UINT64_C(1) << 30) /* bytes */

typedef struct SweepPiece {
        uint64_t start, length; /* bytes */
        bool zero;
} SweepPiece;

typedef struct Sweep {
        Chain *chain;
        uint64_t start, end;  /* multiples of the grain, or the disk's end */
        uint32_t grain;       /* a power of two, at most SWEEP_PIECE */
        uint64_t zero_min;    /* shorter zeroes count as data; at least the grain */
        unsigned threads;     /* 0: as many as are worth having */
        const atomic_bool *cancel; /* or NULL: -ECANCELED once it is true */
        /* Any of the threads; the first error ends all. */
        int (*work)(void *context, const SweepPiece *piece, Reason *reterr);
        /* From the caller's thread, some times a second: all before done has been worked on. */
        int (*tick)(void *context, uint64_t done, Reason *reterr);
        void *context;        /* of both */
} Sweep;

int sweep_run(const Sweep *sweep, Reason *reterr);
