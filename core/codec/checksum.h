/* core/codec/checksum.h - the one checksum of the project: XXH3, 64 bits, seed 0
 * (https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md). Any single-bit flip changes it. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <xxhash.h>

static inline uint64_t checksum(const void *bytes, size_t length) {
        return XXH3_64bits(bytes, length);
}
