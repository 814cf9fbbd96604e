/* core/sources/nbd-contexts.h - what an NBD server answers for one range, context by context, and the two put together.
 *
 * A server may answer for less than was asked and for each context in lengths of its own, so that entries of two
 * contexts never correspond by their number. Each context is gathered by itself; nbd_contexts_intersect() then walks
 * both. */
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

/* Appends what both contexts cover from start on; neighbours in the same state become one. bitmap NULL: all is dirty.
 * *ret_covered: how far that went, 0 where a context answered nothing. -ENOMEM. */
int nbd_contexts_intersect(const NbdContext *allocation, const NbdContext *bitmap, uint64_t start, SourceExtents *extents,
                           uint64_t *ret_covered);
