/* core/formats/vma/packing-lzop.c - lzop: LZO1X in blocks.
 *
 * All integers are big-endian. A file is a header, blocks, and 4 bytes of zero; another one may follow.
 *      0  9  magic
 *      9  2  version; 2 that of the library; from version 0x940 on 2 version needed
 *         1  method, 1 to 3: LZO1X; from version 0x940 on 1 level
 *         4  flags; with 0x800 4 filter
 *         4  mode, 4 time; from version 0x940 on 4 more of the time
 *         1  length of the name, and the name
 *         4  checksum from the version on, Adler-32, with flag 0x1000 CRC-32
 *     With flag 0x40: 4 length, as many bytes, 4 checksum.
 *     Block: 4 length unpacked, 4 length packed; checksums of what is unpacked: with flag 1 Adler-32, with 0x100 CRC-32; and
 * where
 *     it is packed (the lengths differ), of that: with flag 2 Adler-32, with 0x200 CRC-32; the bytes. */
#include <errno.h>
#include <lzo/lzo1x.h>
#include <stdbool.h>
#include <string.h>
#include <zlib.h>

#include "formats/vma/unpacker.h"
#include "util/bytes.h"

#define BLOCK_MAX (64u << 20) /* as the tool has it */
#define HEAD_MAX 512u         /* of a header without its extra field, and of a block's head */

enum {
        ADLER_OF_UNPACKED = 0x1,
        ADLER_OF_PACKED = 0x2,
        EXTRA_FIELD = 0x40,
        CRC_OF_UNPACKED = 0x100,
        CRC_OF_PACKED = 0x200,
        MULTIPART = 0x400,
        FILTER = 0x800,
        CRC_OF_HEADER = 0x1000,
};

typedef enum LzopState { LZOP_HEADER, LZOP_EXTRA, LZOP_BLOCK } LzopState;

typedef struct Lzop {
        LzopState state;
        uint32_t flags;
        unsigned char *packed, *unpacked; /* a block */
        size_t packed_size, unpacked_size; /* of the buffers */
        uint32_t packed_length, packed_filled, unpacked_length, unpacked_taken;
        bool in_block; /* its head has been read, not all of its bytes */
        bool is_ready; /* it is unpacked, and not all of it has been taken */
        uint32_t checks[4];
        unsigned char head[HEAD_MAX];
        size_t head_length, wanted; /* bytes that are there, and that are needed to go on */
        uint64_t skip;              /* bytes of the extra field that are to come */
} Lzop;

static void expect(Lzop *lzop, LzopState state, size_t wanted) {
        lzop->state = state;
        lzop->head_length = 0;
        lzop->wanted = wanted;
}

static int lzop_start(void **ret_state, Reason *reterr) {
        Lzop *lzop;

        if (lzo_init() != LZO_E_OK)
                return fail(reterr, -ENOTSUP, "the LZO library cannot be used");
        lzop = calloc(1, sizeof *lzop);
        if (!lzop)
                return fail_oom(reterr);
        expect(lzop, LZOP_HEADER, 16);
        *ret_state = lzop;
        return 0;
}

static int damaged(Reason *reterr, const char *what) {
        return fail(reterr, -EBADMSG, "lzop cannot unpack it: %s", what);
}

static uint32_t sum_of(bool crc, const unsigned char *bytes, size_t length) {
        return (uint32_t) (crc ? crc32(crc32(0, NULL, 0), bytes, (uInt) length) : adler32(1, bytes, (uInt) length));
}

/* With the first bytes known, how many there are; 0: all are there, and good. */
static int load_header(Lzop *lzop, size_t *ret_more, Reason *reterr) {
        const unsigned char *head = lzop->head;
        unsigned version = load_be16(head + 9);
        bool newer = version >= 0x940;
        size_t method_at = newer ? 15 : 13, flags_at = method_at + (newer ? 2 : 1), name_at, end;

        if (memcmp(head, packing_lzop.magic, packing_lzop.magic_length) != 0)
                return damaged(reterr, "there is no lzop header where one should be");
        *ret_more = flags_at + 4;
        if (lzop->head_length < *ret_more)
                return 0;
        lzop->flags = load_be32(head + flags_at);
        if (head[method_at] < 1 || head[method_at] > 3)
                return fail(reterr, -ENOTSUP, "lzop's method %u is not known", head[method_at]);
        if (lzop->flags & (FILTER | MULTIPART))
                return fail(reterr, -ENOTSUP, "lzop's filters and files in parts are not known");
        name_at = flags_at + 4 + 4 + 4 + (newer ? 4 : 0);
        *ret_more = name_at + 1;
        if (lzop->head_length < *ret_more)
                return 0;
        end = name_at + 1 + head[name_at];
        *ret_more = end + 4;
        if (lzop->head_length < *ret_more)
                return 0;
        if (sum_of(lzop->flags & CRC_OF_HEADER, head + 9, end - 9) != load_be32(head + end))
                return damaged(reterr, "the checksum of its header does not fit");
        *ret_more = 0;
        return 0;
}

static int make_room(unsigned char **buffer, size_t *size, uint32_t length, Reason *reterr) {
        if (*size >= length)
                return 0;
        free(*buffer);
        *size = 0;
        *buffer = malloc(length);
        if (!*buffer)
                return fail_oom(reterr);
        *size = length;
        return 0;
}

/* As above. */
static int load_block(Lzop *lzop, size_t *ret_more, Reason *reterr) {
        static const uint32_t flags[] = { ADLER_OF_UNPACKED, CRC_OF_UNPACKED, ADLER_OF_PACKED, CRC_OF_PACKED };
        size_t at = 8;
        int rc;

        lzop->unpacked_length = load_be32(lzop->head);
        *ret_more = 8;
        if (lzop->unpacked_length == 0) {
                expect(lzop, LZOP_HEADER, 16);
                *ret_more = 0;
                return 0;
        }
        if (lzop->head_length < 8)
                return 0;
        lzop->packed_length = load_be32(lzop->head + 4);
        if (lzop->unpacked_length > BLOCK_MAX || lzop->packed_length > lzop->unpacked_length || lzop->packed_length == 0)
                return damaged(reterr, "a block has an impossible length");
        for (size_t i = 0; i < 4; i++) {
                if (!(lzop->flags & flags[i]) || (i >= 2 && lzop->packed_length == lzop->unpacked_length))
                        continue;
                *ret_more = at + 4;
                if (lzop->head_length >= *ret_more)
                        lzop->checks[i] = load_be32(lzop->head + at);
                at += 4;
        }
        if (lzop->head_length < at)
                return 0;
        *ret_more = 0;
        rc = make_room(&lzop->packed, &lzop->packed_size, lzop->packed_length, reterr);
        if (rc == 0)
                rc = make_room(&lzop->unpacked, &lzop->unpacked_size, lzop->unpacked_length, reterr);
        lzop->packed_filled = 0;
        lzop->in_block = true;
        return rc;
}

static int check_sums(const Lzop *lzop, const unsigned char *bytes, uint32_t length, size_t first, Reason *reterr) {
        static const uint32_t flags[] = { ADLER_OF_UNPACKED, CRC_OF_UNPACKED, ADLER_OF_PACKED, CRC_OF_PACKED };

        for (size_t i = first; i < first + 2; i++)
                if ((lzop->flags & flags[i]) && sum_of(i & 1, bytes, length) != lzop->checks[i])
                        return damaged(reterr, "the checksum of a block does not fit");
        return 0;
}

static int unpack_block(Lzop *lzop, Reason *reterr) {
        lzo_uint length = lzop->unpacked_length;
        int rc;

        lzop->in_block = false;
        lzop->is_ready = true;
        if (lzop->packed_length == lzop->unpacked_length)
                memcpy(lzop->unpacked, lzop->packed, length);
        else {
                rc = check_sums(lzop, lzop->packed, lzop->packed_length, 2, reterr);
                if (rc < 0)
                        return rc;
                if (lzo1x_decompress_safe(lzop->packed, lzop->packed_length, lzop->unpacked, &length, NULL) != LZO_E_OK ||
                    length != lzop->unpacked_length)
                        return damaged(reterr, "a block is damaged");
        }
        lzop->unpacked_taken = 0;
        expect(lzop, LZOP_BLOCK, 4);
        return check_sums(lzop, lzop->unpacked, lzop->unpacked_length, 0, reterr);
}

static size_t take(unsigned char *to, size_t have, size_t wanted, const unsigned char *from, size_t length) {
        size_t part = (size_t) min_u64(wanted - have, length);

        memcpy(to + have, from, part);
        return part;
}

/* The head of whatever comes next: what has been taken of the input. */
static int load_head(Lzop *lzop, const unsigned char *from, size_t length, size_t *ret_taken, Reason *reterr) {
        size_t more = 0;
        int rc;

        *ret_taken = take(lzop->head, lzop->head_length, lzop->wanted, from, length);
        lzop->head_length += *ret_taken;
        if (lzop->head_length < lzop->wanted)
                return 0;
        switch (lzop->state) {
        case LZOP_HEADER:
                rc = load_header(lzop, &more, reterr);
                if (rc == 0 && more == 0)
                        expect(lzop, lzop->flags & EXTRA_FIELD ? LZOP_EXTRA : LZOP_BLOCK, 4);
                break;
        case LZOP_EXTRA:
                lzop->skip = (uint64_t) load_be32(lzop->head) + 4;
                expect(lzop, LZOP_BLOCK, 4);
                return 0;
        default:
                rc = load_block(lzop, &more, reterr);
        }
        if (more > 0)
                lzop->wanted = more;
        return rc;
}

static int lzop_unpack(void *state, const void *from, size_t *from_length, void *to, size_t *to_length, Reason *reterr) {
        Lzop *lzop = state;
        const unsigned char *in = from;
        size_t used = 0, made = 0;
        int rc = 0;

        for (;;) {
                size_t part = 0;

                if (lzop->is_ready) {
                        part = (size_t) min_u64(lzop->unpacked_length - lzop->unpacked_taken, *to_length - made);
                        memcpy((unsigned char *) to + made, lzop->unpacked + lzop->unpacked_taken, part);
                        made += part;
                        lzop->unpacked_taken += (uint32_t) part;
                        if (lzop->unpacked_taken < lzop->unpacked_length)
                                break;
                        lzop->is_ready = false;
                } else if (lzop->skip > 0) {
                        part = (size_t) min_u64(lzop->skip, *from_length - used);
                        lzop->skip -= part;
                        used += part;
                } else if (lzop->in_block) {
                        part = take(lzop->packed, lzop->packed_filled, lzop->packed_length, in + used, *from_length - used);
                        lzop->packed_filled += (uint32_t) part;
                        used += part;
                        if (lzop->packed_filled == lzop->packed_length)
                                rc = unpack_block(lzop, reterr);
                } else {
                        rc = load_head(lzop, in + used, *from_length - used, &part, reterr);
                        used += part;
                }
                if (rc < 0)
                        return rc;
                if (part == 0)
                        break;
        }
        *from_length = used;
        *to_length = made;
        return lzop->state == LZOP_HEADER && lzop->head_length == 0;
}

static void lzop_free(void *state) {
        Lzop *lzop = state;

        free(lzop->packed);
        free(lzop->unpacked);
        free(lzop);
}

const Packing packing_lzop = {
        .name = "lzop",
        .ending = ".lzo",
        .magic = { 0x89, 'L', 'Z', 'O', 0, '\r', '\n', 0x1a, '\n' },
        .magic_length = 9,
        .start = lzop_start,
        .unpack = lzop_unpack,
        .free = lzop_free,
};
