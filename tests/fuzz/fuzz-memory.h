/* tests/fuzz/fuzz-memory.h - an input as a byte store. */
#pragma once

#include <stdlib.h>
#include <string.h>

#include "formats/byte-store.h"

typedef struct FuzzStore {
        ByteStore store;
        const uint8_t *data;
} FuzzStore;

static inline int fuzz_store_read(ByteStore *store, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        memcpy(buffer, ((FuzzStore *) store)->data + offset, length);
        return 0;
}

static inline FuzzStore fuzz_store(const uint8_t *data, size_t size) {
        static const ByteStoreOps ops = { .read = fuzz_store_read };

        return (FuzzStore) { { .ops = &ops, .size = size, .name = (char *) "input" }, data };
}
