/* tests/fuzz/fuzz-vma.c - a VMA archive: its header, its extents, the map of its clusters. MD5s are made to fit, as nothing
 * behind them would ever be reached. */
#include <stdatomic.h>

#include "formats/vma/extent.h"
#include "formats/vma/header.h"
#include "formats/vma/scan.h"
#include "fuzz-memory.h"
#include "fuzz.h"
#include "util/bytes.h"

#define CLUSTERS_SEEN 4096

/* Whatever looks like the header of an extent. */
static void seal_extents(uint8_t *bytes, size_t start, size_t size) {
        for (size_t at = start; at + VMA_EXTENT_HEADER_SIZE <= size; at += 512)
                if (memcmp(bytes + at, VMA_EXTENT_MAGIC, 4) == 0) {
                        memcpy(bytes + at + 8, bytes + 8, VMA_UUID_SIZE);
                        vma_md5(bytes + at, VMA_EXTENT_HEADER_SIZE, VMA_EXTENT_MD5_AT, bytes + at + VMA_EXTENT_MD5_AT);
                }
}

static void scan(const VmaHeader *header, const uint8_t *data, size_t size) {
        static Cluster clusters[CLUSTERS_SEEN];
        CLEANUP(cluster_map_freep) ClusterMap *map = NULL;
        FuzzStore store = fuzz_store(data, size);
        atomic_bool cancel = false;
        VmaScan state;

        if (cluster_map_new(header, 64 << 20, &map) < 0)
                return;
        vma_scan_init(&state, header, map);
        while (vma_scan_step(&state, &store.store, size, true, &cancel, NULL) == 1)
                ;
        for (unsigned device = 1; device < VMA_DEVICE_COUNT; device++) {
                uint64_t count = min_u64(header->devices[device].clusters, CLUSTERS_SEEN);

                if (count == 0 || cluster_map_get(map, device, 0, count, clusters, NULL) < 0)
                        continue;
                for (uint64_t i = 0; i < count; i++) /* where something is said to be, it is */
                        if (clusters[i].state == CLUSTER_FOUND &&
                            clusters[i].offset + (uint64_t) __builtin_popcount(clusters[i].mask) * VMA_BLOCK_SIZE > size)
                                abort();
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        CLEANUP(vma_header_freep) VmaHeader *header = NULL;
        uint8_t *bytes;
        uint32_t length;

        if (size < VMA_HEADER_SIZE || vma_header_length(data, &length, NULL) < 0 || length > size)
                return 0;
        bytes = malloc(length);
        if (!bytes)
                return 0;
        memcpy(bytes, data, length);
        vma_md5(bytes, length, VMA_HEADER_MD5_AT, bytes + VMA_HEADER_MD5_AT);
        if (vma_header_load(bytes, &header, NULL) < 0) {
                free(bytes);
                return 0;
        }
        bytes = malloc(size);
        if (bytes) {
                memcpy(bytes, data, size);
                seal_extents(bytes, length, size);
                scan(header, bytes, size);
        }
        free(bytes);
        return 0;
}
