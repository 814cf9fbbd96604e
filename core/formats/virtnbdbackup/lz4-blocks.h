/* core/formats/virtnbdbackup/lz4-blocks.h - unpacks the blocks of an LZ4 frame from any place where that was left before.
 *
 * Threads: a place is immutable. */
#pragma once

#define XXH_STATIC_LINKING_ONLY /* a hash's state is kept by value */
#include <xxhash.h>

#include "formats/virtnbdbackup/cursor.h"
#include "formats/virtnbdbackup/lz4-header.h"

/* Where to go on in a frame, and what its next block may refer to. */
typedef struct Lz4Place {
        Lz4Header header;
        uint64_t offset;    /* of the next block, in the stream */
        uint64_t reached;   /* bytes of the content before it */
        XXH32_state_t hash; /* of the content before it; where the frame has a checksum of it */
        size_t dictionary_length;
        unsigned char dictionary[]; /* the end of the content before it */
} Lz4Place;

/* The beginning of a run's frame, which must hold as much as the run. The caller frees *ret. */
int lz4_place_begin(ByteStore *bytes, const Run *run, Lz4Place **ret, Reason *reterr);

/* Unpacks length bytes, whole blocks but for the frame's last one, and checks all that the frame has checksums for.
 * ret_next, where it is not NULL and the frame does not end there, is the place behind; the caller frees it. -EIO where it
 * is damaged. */
int lz4_unpack(ByteStore *bytes, const Run *run, const Lz4Place *from, unsigned char *to, size_t length, Lz4Place **ret_next,
               Reason *reterr);
