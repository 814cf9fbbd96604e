/* core/chain/chain-view.h - a disk at a restore point, or a part of one, such as a partition.
 *
 * Offsets in a view begin at its start. A plain value: the chain is borrowed. */
#pragma once

#include "chain/chain.h"

typedef struct ChainView {
        Chain *chain;
        uint64_t start, size; /* bytes; within the chain */
} ChainView;

/* All of it. */
ChainView chain_view_whole(Chain *chain);

/* As chain_next_extent(), clipped to the view. offset < size. */
int chain_view_next_extent(const ChainView *view, uint64_t offset, ChainExtent *ret, Reason *reterr);

/* As chain_read(). */
int chain_view_read(const ChainView *view, void *buffer, size_t length, uint64_t offset, Reason *reterr);

/* As chain_seek(). */
int64_t chain_view_seek(const ChainView *view, uint64_t offset, int whence);
