/* core/import/chain-reader.h - a disk at a point, or a file kept with one, as what a capture's pipeline reads from.
 *
 * Of an incremental point what its own layers hold, and those of points left out before it, is dirty, and nothing else:
 * where a chain is made again, it changes where the first changed, however the formats cut it. Threads: a SourceReader
 * belongs to one at a time; any number may be opened. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "chain/chain.h"
#include "sources/source.h"

/* All borrowed by the readers. */
typedef struct ChainSource {
        Chain *chain;         /* of the disk; or NULL: */
        Layer *layer;         /* the kept file */
        const char *parent;   /* what later points than this one hold is dirty; NULL: all of the disk is */
        uint64_t parent_size; /* bytes of the parent's disk; 0: it has none */
        const atomic_bool *cancel; /* or NULL */
        atomic_bool failed;   /* a read or the map has failed: the source is to blame */
} ChainSource;

/* context: a ChainSource. As readers.h wants it. */
int chain_reader_open(void *context, SourceReader **ret, Reason *reterr);

/* Bytes that are to be read: dirty, and no zeroes. */
int chain_source_total(ChainSource *source, uint64_t *ret, Reason *reterr);
