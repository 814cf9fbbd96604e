/* core/formats/vma/writer.h - makes the two things that a VMA archive is made of: its header and its extents.
 *
 * What the stock writer and reader hold to is held to: 58 entries in an extent, a header of at most 512 KiB, sizes of disks
 * that are multiples of 512. Writing them one behind the other is up to the caller; extents can be made side by side. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "formats/vma/layout.h"
#include "util/reason.h"

#define VMA_WRITE_ENTRIES 58u
#define VMA_WRITE_HEADER_MAX (512u << 10)
#define VMA_WRITE_DEVICES_MAX 254 /* numbered from 1 on */

typedef struct VmaHeaderDescription {
        unsigned char uuid[VMA_UUID_SIZE];
        int64_t time; /* seconds since 1970 */
        struct {
                const char *name;
                uint64_t size; /* bytes, not 0; of a disk a multiple of 512 */
        } devices[VMA_WRITE_DEVICES_MAX];
        size_t device_count;
        struct {
                const char *name;
                const void *data;
                size_t length; /* at most VMA_BLOB_MAX */
        } configs[VMA_CONFIG_COUNT];
        size_t config_count;
} VmaHeaderDescription;

/* How many bytes a configuration file takes in a header; see VMA_WRITE_HEADER_MAX. */
size_t vma_config_room(const char *name, size_t length);
/* The same for all that is described. */
size_t vma_header_room(const VmaHeaderDescription *description);

/* The caller frees *ret. -E2BIG: more than there is room for. */
int vma_header_make(const VmaHeaderDescription *description, void **ret, size_t *ret_length, Reason *reterr);

/* Neighbouring clusters of one device. buffer: VMA_EXTENT_HEADER_SIZE bytes, and behind them those of the clusters where
 * they are data: blocks that are zeroes are taken out, the others moved together. stored: which blocks may be anything else,
 * a bit for each; what is not among them need not be in the buffer. Returns the length of the extent. */
size_t vma_extent_make(unsigned char *buffer, const unsigned char *uuid, unsigned device, uint32_t cluster, unsigned count,
                       const uint16_t *stored);
