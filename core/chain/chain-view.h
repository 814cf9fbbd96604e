/* core/chain/chain-view.h - a disk at a restore point, a part of one such as a partition, or a volume that is put together
 * of parts of one or several disks of the same point.
 *
 * Offsets in a view begin at its start. Immutable once made; threads: any. */
#pragma once

#include "chain/chain.h"

typedef struct ChainView ChainView;

/* A range of one of the disks. */
typedef struct ViewPlace {
        size_t disk;    /* which of them */
        uint64_t start; /* bytes, on the disk */
} ViewPlace;

/* A piece of a view: in one place, or striped over several, which take turns with stripe_size bytes each. */
typedef struct ViewPiece {
        uint64_t size;        /* bytes, in the view */
        uint64_t stripe_size; /* bytes; 0 where there is one place */
        size_t place_count;
        ViewPlace *places;
} ViewPiece;

void view_pieces_free(ViewPiece *pieces, size_t count);

/* These take the chains over where they succeed. */

/* All of the disk. */
int chain_view_whole(Chain *chain, ChainView **ret, Reason *reterr);
/* [start, start + size) of it. -EBADMSG where that is not within the disk, as with the others. */
int chain_view_range(Chain *chain, uint64_t start, uint64_t size, ChainView **ret, Reason *reterr);
/* The pieces one behind the other, which are copied. */
int chain_view_pieces(Chain *const *chains, size_t chain_count, const ViewPiece *pieces, size_t piece_count, ChainView **ret,
                      Reason *reterr);
ChainView *chain_view_free(ChainView *view); /* always NULL */
DEFINE_CLEANUP(ChainView, chain_view_free)

uint64_t chain_view_size(const ChainView *view); /* bytes */

/* Whether they show the same place of the same disks, at whatever points. */
bool chain_view_is_same_place(const ChainView *a, const ChainView *b);

/* As chain_next_extent(): the extent from offset (< size) on, neighbours of the same state and point joined. */
int chain_view_next_extent(const ChainView *view, uint64_t offset, ChainExtent *ret, Reason *reterr);

/* As chain_read(). */
int chain_view_read(const ChainView *view, void *buffer, size_t length, uint64_t offset, Reason *reterr);

/* As chain_is_zero(). */
int chain_view_is_zero(const ChainView *view, uint64_t offset, size_t length);

/* lseek(2): whence SEEK_DATA or SEEK_HOLE. The offset, or -ENXIO as lseek(2) has it. Unreadable counts as data. */
int64_t chain_view_seek(const ChainView *view, uint64_t offset, int whence);

/* Bytes of it that are no hole. */
int chain_view_allocated(const ChainView *view, uint64_t *ret, Reason *reterr);
