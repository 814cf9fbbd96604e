#include "formats/vma/extent.h"

#include <errno.h>
#include <string.h>

#include "formats/vma/header.h"
#include "util/bytes.h"

int vma_extent_load(unsigned char *bytes, const unsigned char *uuid, VmaExtent *ret, Reason *reterr) {
        uint32_t blocks = 0, said;
        unsigned char md5[16];
        VmaExtent extent;

        if (memcmp(bytes, VMA_EXTENT_MAGIC, 4) != 0 || load_be16(bytes + 4) != 0)
                return fail(reterr, -EBADMSG, "there is no extent where one should begin");
        if (memcmp(bytes + 8, uuid, VMA_UUID_SIZE) != 0)
                return fail(reterr, -EBADMSG, "the extent is of another archive");
        vma_md5(bytes, VMA_EXTENT_HEADER_SIZE, VMA_EXTENT_MD5_AT, md5);
        if (memcmp(md5, bytes + VMA_EXTENT_MD5_AT, sizeof md5) != 0)
                return fail(reterr, -EBADMSG, "the MD5 of the extent's header does not fit");
        for (unsigned i = 0; i < VMA_EXTENT_ENTRIES; i++) {
                uint64_t entry = load_be64(bytes + 40 + i * 8);

                extent.entries[i] = (VmaEntry) {
                        .cluster = (uint32_t) entry,
                        .device = (uint8_t) (entry >> 32),
                        .mask = (uint16_t) (entry >> 48),
                        .offset = blocks * VMA_BLOCK_SIZE,
                };
                if (extent.entries[i].device == 0)
                        continue;
                if ((uint8_t) (entry >> 40) != 0)
                        return fail(reterr, -EBADMSG, "entry %u of the extent has bits that are not known", i);
                blocks += (uint32_t) __builtin_popcount(extent.entries[i].mask);
        }
        said = load_be16(bytes + 6);
        if (said != blocks)
                return fail(reterr, -EBADMSG, "the extent should have %u blocks, and its entries name %u", said, blocks);
        extent.length = VMA_EXTENT_HEADER_SIZE + blocks * VMA_BLOCK_SIZE;
        *ret = extent;
        return 0;
}
