/* core/formats/virtnbdbackup/stream-index.h - where in a stream the pieces of a disk lie.
 *
 * Made from the front as far as it is asked for, in segments that the cache keeps; what stays is where each segment begins.
 * Threads: any. */
#pragma once

#include "formats/virtnbdbackup/cursor.h"
#include "formats/virtnbdbackup/memory.h"

typedef struct StreamIndex StreamIndex;

/* shape and memory are borrowed. */
int stream_index_new(const Shape *shape, const Memory *memory, StreamIndex **ret, Reason *reterr);
StreamIndex *stream_index_free(StreamIndex *index); /* always NULL */
DEFINE_CLEANUP(StreamIndex, stream_index_free)

typedef struct RunPlace {
        CacheEntry *segment; /* a reference; NULL: nowhere */
        size_t number, at;   /* of the segment; of the run in it */
} RunPlace;

/* The first run that ends behind offset: 1, or 0 where there is none. *place: zeroed before; it stays there for
 * stream_index_next(). -EIO where the stream is broken before: what is behind the last run is lost. */
int stream_index_find(StreamIndex *index, uint64_t offset, RunPlace *place, Run *ret, Reason *reterr);
/* The run behind. The same results. */
int stream_index_next(StreamIndex *index, RunPlace *place, Run *ret, Reason *reterr);
void run_place_clear(RunPlace *place);
