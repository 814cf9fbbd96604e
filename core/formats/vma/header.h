/* core/formats/vma/header.h - the header of a VMA archive, decoded and checked.
 *
 * vma_header_load() is where its bytes come in: after it all names are texts, of devices no two are the same, and all sizes
 * are such that clusters can be counted in 32 bits.
 * Threads: a loaded header is immutable. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "formats/vma/layout.h"
#include "util/cleanup.h"
#include "util/reason.h"

typedef struct VmaDevice {
        const char *name;  /* as it stands there; NULL: there is no such device */
        uint64_t size;     /* bytes; of RAM: what was expected, which may be less than there is */
        uint64_t clusters; /* that it has */
        bool ram;
} VmaDevice;

typedef struct VmaConfig {
        const char *name;
        const void *data;
        size_t length;
} VmaConfig;

typedef struct VmaHeader {
        unsigned char uuid[VMA_UUID_SIZE];
        int64_t time; /* seconds since 1970 */
        uint32_t size; /* bytes: where the first extent begins */
        VmaDevice devices[VMA_DEVICE_COUNT];
        VmaConfig configs[VMA_CONFIG_COUNT];
        size_t config_count;
        unsigned char *bytes; /* what names and data point into; owned */
} VmaHeader;

/* How long the header says it is, from its first VMA_HEADER_SIZE bytes: what vma_header_load() wants. -EBADMSG; -ENOTSUP:
 * another version. */
int vma_header_length(const void *bytes, uint32_t *ret, Reason *reterr);

/* bytes: as many as vma_header_length() said, allocated; taken over on success. -EBADMSG with the reason. */
int vma_header_load(void *bytes, VmaHeader **ret, Reason *reterr);
VmaHeader *vma_header_free(VmaHeader *header); /* always NULL */
DEFINE_CLEANUP(VmaHeader, vma_header_free)

/* The MD5 that stands in a header or extent of length bytes, which are changed and put back: as it should be. */
void vma_md5(unsigned char *bytes, size_t length, size_t md5_at, unsigned char ret[static 16]);
#define VMA_HEADER_MD5_AT 32
#define VMA_EXTENT_MD5_AT 24
