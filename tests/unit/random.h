/* tests/unit/random.h - numbers that are the same in each run. */
#pragma once

#include <stdint.h>
#include <string.h>

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static inline void random_seed(uint64_t seed) {
        random_state = seed * 2654435761u + 0x9e3779b97f4a7c15u;
}

static inline uint64_t random_u64(void) {
        uint64_t z = (random_state += 0x9e3779b97f4a7c15u);

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
}

/* 0 … bound - 1 */
static inline uint64_t random_below(uint64_t bound) {
        return random_u64() % bound;
}

/* Bytes that compress well, somewhat, or not at all. */
static inline void random_bytes(void *to, size_t length) {
        uint8_t *bytes = to;
        uint64_t kind = random_below(3);

        for (size_t i = 0; i < length; i++)
                bytes[i] = kind == 0   ? (uint8_t) random_u64()
                           : kind == 1 ? (uint8_t) (random_u64() & 15)
                                       : (uint8_t) (i >> 8);
        if (length > 0)
                bytes[random_below(length)] |= 1;
}
