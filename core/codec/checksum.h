/* core/codec/checksum.h - the one checksum of the project: XXH3, 64 bits, seed 0
 * (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md). Any single-bit flip changes it. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>
#ifdef __x86_64__
#include <xxh_x86dispatch.h> /* XXH3_64bits() with the widest vectors that the processor has */
#endif

#include "util/cleanup.h"

static inline uint64_t checksum(const void *bytes, size_t length) {
        return XXH3_64bits(bytes, length);
}

/* The same of what is told piece by piece. */
typedef XXH3_state_t ChecksumState;

/* NULL: no memory. */
static inline ChecksumState *checksum_begin(void) {
        ChecksumState *state = XXH3_createState();

        if (state)
                XXH3_64bits_reset(state);
        return state;
}

static inline void checksum_add(ChecksumState *state, const void *bytes, size_t length) {
        XXH3_64bits_update(state, bytes, length);
}

static inline uint64_t checksum_end(const ChecksumState *state) {
        return XXH3_64bits_digest(state);
}

static inline ChecksumState *checksum_free(ChecksumState *state) { /* always NULL */
        XXH3_freeState(state);
        return NULL;
}
DEFINE_CLEANUP(ChecksumState, checksum_free)
