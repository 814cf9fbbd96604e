/* core/sources/nbd-contexts.h - what an NBD server answers for one range, context by context, and these put together.
 *
 * A server may answer for less than was asked and for each context in lengths of its own, so that entries of two
 * contexts never correspond by their number. Each context is gathered by itself; nbd_contexts_intersect() then walks
 * all of them. */
#pragma once

#include "sources/source.h"

/* The answer of one context: (length, flags) from the start of the asked range on. */
typedef struct NbdContext {
        uint32_t (*entries)[2];
        size_t count, capacity;
        uint64_t covered;  /* bytes, at most those asked for */
} NbdContext;

void nbd_context_clear(NbdContext *context);

/* Takes in an answer for [0, asked): pairs of length and flags as libnbd gives them. What leads past the asked range
 * is cut. -EPROTO: an entry of no length, or a second answer of the same context. */
int nbd_context_take(NbdContext *context, const uint32_t *entries, size_t entry_words, uint64_t asked);

/* The contexts that are asked for; NULL where one is not. */
typedef struct NbdContexts {
        const NbdContext *allocation; /* base:allocation; NULL: nothing is known to be zero */
        const NbdContext *dirty;      /* a bitmap; NULL: all is dirty */
        const NbdContext *depth;      /* qemu:allocation-depth: which image of the chain has it, from 1 on; 0: none */
        unsigned top_depth;           /* the deepest of those that count as the top image */
} NbdContexts;

/* Appends what all contexts cover of [start, start + length); neighbours in the same state become one. *ret_covered: how far
 * that went, 0 where a context answered nothing. -ENOMEM. */
int nbd_contexts_intersect(const NbdContexts *contexts, uint64_t start, uint64_t length, SourceExtents *extents,
                           uint64_t *ret_covered);
