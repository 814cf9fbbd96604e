#include "formats/vma/writer.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "formats/vma/header.h"
#include "util/bytes.h"

size_t vma_config_room(const char *name, size_t length) {
        return 2 + strlen(name) + 1 + 2 + length;
}

size_t vma_header_room(const VmaHeaderDescription *description) {
        size_t length = 1;

        for (size_t i = 0; i < description->device_count; i++)
                length += 2 + strlen(description->devices[i].name) + 1;
        for (size_t i = 0; i < description->config_count; i++)
                length += vma_config_room(description->configs[i].name, description->configs[i].length);
        return VMA_HEADER_SIZE + length;
}

/* Where the blob is, and *end behind it. */
static uint32_t put_blob(unsigned char *header, size_t *end, const void *data, size_t length) {
        size_t at = *end;

        store_le16(header + at, (uint16_t) length);
        memcpy(header + at + 2, data, length);
        *end = at + 2 + length;
        return (uint32_t) (at - VMA_HEADER_SIZE);
}

int vma_header_make(const VmaHeaderDescription *description, void **ret, size_t *ret_length, Reason *reterr) {
        size_t room = vma_header_room(description), length = round_up(room, 512), end = VMA_HEADER_SIZE + 1;
        unsigned char *header;

        if (length > VMA_WRITE_HEADER_MAX || description->device_count > VMA_WRITE_DEVICES_MAX ||
            description->config_count > VMA_CONFIG_COUNT)
                return fail(reterr, -E2BIG, "a VMA archive has no room for so many files and disks");
        header = calloc(1, length);
        if (!header)
                return fail_oom(reterr);
        memcpy(header, VMA_MAGIC, sizeof VMA_MAGIC);
        store_be32(header + 4, VMA_VERSION);
        memcpy(header + 8, description->uuid, VMA_UUID_SIZE);
        store_be64(header + 24, (uint64_t) description->time);
        store_be32(header + 48, VMA_HEADER_SIZE);
        store_be32(header + 52, (uint32_t) (room - VMA_HEADER_SIZE));
        store_be32(header + 56, (uint32_t) length);
        for (size_t i = 0; i < description->config_count; i++) {
                const char *name = description->configs[i].name;

                assert(description->configs[i].length <= VMA_BLOB_MAX);
                store_be32(header + VMA_CONFIG_NAMES + i * 4, put_blob(header, &end, name, strlen(name) + 1));
                store_be32(header + VMA_CONFIG_DATA + i * 4,
                           put_blob(header, &end, description->configs[i].data, description->configs[i].length));
        }
        for (size_t i = 0; i < description->device_count; i++) {
                unsigned char *info = header + VMA_DEVICES + (i + 1) * VMA_DEVICE_SIZE;
                const char *name = description->devices[i].name;

                assert(description->devices[i].size > 0);
                store_be32(info, put_blob(header, &end, name, strlen(name) + 1));
                store_be64(info + 8, description->devices[i].size);
        }
        assert(end == room);
        vma_md5(header, length, VMA_HEADER_MD5_AT, header + VMA_HEADER_MD5_AT);
        *ret = header;
        *ret_length = length;
        return 0;
}

size_t vma_extent_make(unsigned char *buffer, const unsigned char *uuid, unsigned device, uint32_t cluster, unsigned count,
                       const uint16_t *stored) {
        unsigned char *to = buffer + VMA_EXTENT_HEADER_SIZE;

        assert(count <= VMA_EXTENT_ENTRIES);
        memset(buffer, 0, VMA_EXTENT_HEADER_SIZE);
        for (unsigned i = 0; i < count; i++) {
                const unsigned char *from = buffer + VMA_EXTENT_HEADER_SIZE + (size_t) i * VMA_CLUSTER_SIZE;
                uint64_t mask = 0;

                for (unsigned block = 0; block < VMA_CLUSTER_BLOCKS; block++, from += VMA_BLOCK_SIZE) {
                        if (!(stored[i] & 1u << block) || bytes_are_zero(from, VMA_BLOCK_SIZE))
                                continue;
                        if (to != from)
                                memcpy(to, from, VMA_BLOCK_SIZE);
                        to += VMA_BLOCK_SIZE;
                        mask |= UINT64_C(1) << block;
                }
                store_be64(buffer + 40 + i * 8, mask << 48 | (uint64_t) device << 32 | (cluster + i));
        }
        memcpy(buffer, VMA_EXTENT_MAGIC, 4);
        store_be16(buffer + 6, (uint16_t) ((size_t) (to - buffer - VMA_EXTENT_HEADER_SIZE) / VMA_BLOCK_SIZE));
        memcpy(buffer + 8, uuid, VMA_UUID_SIZE);
        vma_md5(buffer, VMA_EXTENT_HEADER_SIZE, VMA_EXTENT_MD5_AT, buffer + VMA_EXTENT_MD5_AT);
        return (size_t) (to - buffer);
}
