#include "formats/virtnbdbackup/lz4-header.h"

#include <errno.h>
#include <inttypes.h>
#include <xxhash.h>

#include "util/bytes.h"

#define MAGIC UINT32_C(0x184d2204)
#define FIXED_LENGTH 6u /* magic and the two bytes of flags */
#define VERSION 1u
#define FLAG_INDEPENDENT 0x20u
#define FLAG_BLOCK_CHECKSUMS 0x10u
#define FLAG_CONTENT_SIZE 0x08u
#define FLAG_CONTENT_CHECKSUM 0x04u
#define FLAG_RESERVED 0x02u
#define FLAG_DICTIONARY 0x01u
#define HEADER_LENGTH (FIXED_LENGTH + 8u + 1u) /* with the size of its content, and the header's checksum */

static int damaged(ByteStore *bytes, uint64_t offset, int rc, const char *what, Reason *reterr) {
        return fail(reterr, rc, "%s is damaged: the LZ4 frame at %" PRIu64 ": %s", byte_store_name(bytes), offset, what);
}

int lz4_header_read(ByteStore *bytes, Window *window, uint64_t offset, uint64_t limit, Lz4Header *ret, Reason *reterr) {
        const unsigned char *header;
        unsigned flags, block_id;
        int rc = window_get(window, bytes, offset, HEADER_LENGTH, limit, &header, reterr);

        if (rc < 0)
                return rc;
        flags = header[4];
        block_id = header[5] >> 4 & 7;
        if (load_le32(header) != MAGIC)
                return damaged(bytes, offset, -EBADMSG, "there is none", reterr);
        if (flags >> 6 != VERSION || flags & (FLAG_RESERVED | FLAG_DICTIONARY) || header[5] & 0x8f || block_id < 4)
                return damaged(bytes, offset, -ENOTSUP, "its header has flags that are not known", reterr);
        if (!(flags & FLAG_CONTENT_SIZE))
                return damaged(bytes, offset, -ENOTSUP, "it does not tell how much it holds", reterr);
        if ((XXH32(header + 4, HEADER_LENGTH - 5, 0) >> 8 & 0xff) != header[HEADER_LENGTH - 1])
                return damaged(bytes, offset, -EBADMSG, "its header's checksum does not fit", reterr);
        *ret = (Lz4Header) {
                .content = load_le64(header + FIXED_LENGTH),
                .block_size = 1u << (8 + 2 * block_id),
                .header_length = HEADER_LENGTH,
                .linked = !(flags & FLAG_INDEPENDENT),
                .has_block_checksums = flags & FLAG_BLOCK_CHECKSUMS,
                .has_content_checksum = flags & FLAG_CONTENT_CHECKSUM,
        };
        if (ret->content == 0 || ret->content > LZ4_CONTENT_MAX)
                return damaged(bytes, offset, -EBADMSG, "it cannot hold as much as it says", reterr);
        return 0;
}

int lz4_frame_measure(ByteStore *bytes, Window *window, uint64_t offset, uint64_t limit, const Lz4Header *header,
                      uint64_t *ret, Reason *reterr) {
        uint64_t blocks = divide_up(header->content, header->block_size), at = offset + header->header_length;

        for (;; blocks--) {
                const unsigned char *field;
                uint32_t size;
                int rc = window_get(window, bytes, at, sizeof size, limit, &field, reterr);

                if (rc < 0)
                        return rc;
                size = load_le32(field) & ~LZ4_BLOCK_STORED;
                at += sizeof size;
                if (load_le32(field) == 0)
                        break;
                if (blocks == 0 || size > header->block_size)
                        return damaged(bytes, offset, -EBADMSG, "its blocks are not what they should be", reterr);
                at += size + (header->has_block_checksums ? sizeof(uint32_t) : 0);
        }
        at += header->has_content_checksum ? sizeof(uint32_t) : 0;
        if (blocks != 0 || at > limit)
                return damaged(bytes, offset, -EBADMSG, "it has been cut off", reterr);
        *ret = at - offset;
        return 0;
}
