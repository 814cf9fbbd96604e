/* core/formats/virtnbdbackup/memory.h - what a stream keeps in the store's cache, by its kind.
 *
 * Offsets in a stream are below MEMORY_OFFSET_MAX, and the number that goes with one is below 256. */
#pragma once

#include "util/cache.h"

#define MEMORY_OFFSET_MAX (UINT64_C(1) << 54)

typedef enum MemoryKind {
        MEMORY_SEGMENT, /* of the index */
        MEMORY_PLACE,   /* to go on unpacking from */
        MEMORY_PIECE,   /* unpacked */
        MEMORY_LANDMARK, /* a place, packed */
} MemoryKind;

typedef struct Memory {
        Cache *cache; /* borrowed */
        uint64_t owner;
} Memory;

static inline CacheKey memory_key(const Memory *memory, MemoryKind kind, uint64_t offset, unsigned number) {
        return (CacheKey) { memory->owner, (uint64_t) kind << 62 | offset << 8 | number };
}

static inline unsigned memory_key_number(CacheKey key) {
        return key.item & 0xff;
}

static inline uint64_t memory_key_offset(CacheKey key) {
        return key.item >> 8 & (MEMORY_OFFSET_MAX - 1);
}
