/* core/chain/chain-diff.h - where two points of a disk differ.
 *
 * The maps come first: where the same layer holds both, or both are zero, nothing is read. Elsewhere the bytes decide, in
 * blocks of DIFF_BLOCK, unless maps are all that is asked for.
 * Threads: each call by itself; it reads with several. */
#pragma once

#include "chain/chain-view.h"

#define DIFF_BLOCK 4096

typedef struct ChainDiff {
        const ChainView *before, *after; /* before NULL: there was no such disk */
        bool maps_only;          /* what was stored anew counts as different, without reading it */
        /* An extent that differs, as it is after, neighbours joined; absent: after is shorter. Less than 0 ends it. */
        int (*see)(void *context, const ChainExtent *extent, bool absent);
        /* How far it has come, of the longer one's size; may be NULL. Less than 0 ends it. */
        int (*progress)(void *context, uint64_t done, uint64_t total);
        void *context;
} ChainDiff;

/* 1 where something could not be read, on either side: it is seen as unreadable, and *reterr has the words of the first. */
int chain_diff(const ChainDiff *diff, Reason *reterr);
