/* tests/fuzz/fuzz-packed.c - a packed file: unpacked from front to back, and in place by its frames. */
#include <stdatomic.h>

#include "formats/vma/frames.h"
#include "formats/vma/unpacker.h"
#include "fuzz-memory.h"
#include "fuzz.h"
#include "util/bytes.h"

#define UNPACKED_MAX (4u << 20)

static void unpack(const Packing *packing, ByteStore *store) {
        static unsigned char buffer[65536];
        CLEANUP(unpacker_freep) Unpacker *unpacker = NULL;
        size_t length = sizeof buffer;

        if (unpacker_new(packing, store, &unpacker, NULL) < 0)
                return;
        for (size_t all = 0; length == sizeof buffer && all < UNPACKED_MAX; all += length)
                if (unpacker_read(unpacker, buffer, sizeof buffer, &length, NULL) < 0)
                        return;
}

static void read_frames(ByteStore *packed) {
        static unsigned char buffer[4096];
        atomic_bool cancel = false;
        ByteStore *frames;
        Cache *memory;

        if (cache_new(64 << 20, &memory) < 0)
                return;
        if (frames_open(packed, memory, &cancel, &frames, NULL) == 0) {
                uint64_t size = byte_store_size(frames);

                (void) byte_store_read(frames, buffer, min_u64(size, sizeof buffer), 0, NULL);
                (void) byte_store_read(frames, buffer, 1, size / 2, NULL);
                (void) byte_store_read(frames, buffer, 1, size - 1, NULL);
                byte_store_free(frames);
        }
        cache_free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        FuzzStore store = fuzz_store(data, size);
        const Packing *packing = size >= PACKING_HEAD ? packing_find(data) : NULL;

        if (!packing)
                return 0;
        unpack(packing, &store.store);
        if (packing == &packing_zstd)
                read_frames(&store.store);
        return 0;
}
