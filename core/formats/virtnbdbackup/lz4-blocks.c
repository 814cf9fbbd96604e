#include "formats/virtnbdbackup/lz4-blocks.h"

#include <errno.h>
#include <inttypes.h>
#include <lz4.h>
#include <string.h>

#include "util/bytes.h"
#include "util/scratch.h"

#define FIELD sizeof(uint32_t)

/* The stored bytes, of which some are read ahead: as many as what is unpacked will take if all of the frame is alike. */
typedef struct Stored {
        ByteStore *bytes;
        const Run *run;
        unsigned char *buffer;
        size_t capacity, ahead, length;
        uint64_t start; /* in the stream, of what is in the buffer */
} Stored;

static int damaged(const Run *run, ByteStore *bytes, const char *what, Reason *reterr) {
        return fail(reterr, -EIO, "%s is damaged: the LZ4 frame at %" PRIu64 ": %s", byte_store_name(bytes), run->offset,
                    what);
}

int lz4_place_begin(ByteStore *bytes, const Run *run, Lz4Place **ret, Reason *reterr) {
        Window window = { 0 };
        Lz4Header header;
        Lz4Place *place;
        int rc = lz4_header_read(bytes, &window, run->offset, run->offset + run->stored, &header, reterr);

        if (rc < 0)
                return rc == -EBADMSG ? -EIO : rc;
        if (header.content != run->length)
                return damaged(run, bytes, "it does not hold as much as it should", reterr);
        place = calloc(1, sizeof *place);
        if (!place)
                return fail_oom(reterr);
        place->header = header;
        place->offset = run->offset + header.header_length;
        XXH32_reset(&place->hash, 0);
        *ret = place;
        return 0;
}

/* length bytes at offset, valid until the next call. */
static int fetch(Stored *stored, uint64_t offset, size_t length, const unsigned char **ret, Reason *reterr) {
        uint64_t left = stored->run->offset + stored->run->stored - offset; /* offset never passes the frame's end */

        if (length > left)
                return damaged(stored->run, stored->bytes, "it has been cut off", reterr);
        if (offset < stored->start || offset + length > stored->start + stored->length) {
                size_t there = (size_t) min_u64(left, max_u64(length, stored->ahead));
                int rc;

                stored->length = 0;
                rc = byte_store_read(stored->bytes, stored->buffer, there, offset, reterr);
                if (rc < 0)
                        return rc;
                stored->start = offset;
                stored->length = there;
                stored->ahead -= min_u64(stored->ahead, there);
        }
        *ret = stored->buffer + (offset - stored->start);
        return 0;
}

static int prepare(Stored *stored, const Lz4Place *from, size_t length, Reason *reterr) {
        uint64_t blocks = length / from->header.block_size + 1;

        stored->ahead = (size_t) ((double) stored->run->stored / (double) from->header.content * (double) length);
        stored->ahead = (size_t) min_u64(stored->ahead + 4096, length + blocks * 2 * FIELD);
        stored->capacity = max_u64(stored->ahead, from->header.block_size + 2 * FIELD);
        stored->buffer = scratch_get(SCRATCH_STORED, stored->capacity);
        return stored->buffer ? 0 : fail_oom(reterr);
}

/* One block of want bytes. *at moves behind it. */
static int unpack_block(Stored *stored, const Lz4Header *header, uint64_t *at, unsigned char *to, size_t want,
                        const unsigned char *dictionary, size_t dictionary_length, Reason *reterr) {
        const Run *run = stored->run;
        const unsigned char *block = NULL;
        size_t size, after = header->has_block_checksums ? FIELD : 0;
        bool plain;
        int rc;

        rc = fetch(stored, *at, FIELD, &block, reterr);
        if (rc < 0)
                return rc;
        plain = load_le32(block) & LZ4_BLOCK_STORED;
        size = load_le32(block) & ~LZ4_BLOCK_STORED;
        if (size == 0 || size > header->block_size)
                return damaged(run, stored->bytes, "a block has an impossible size", reterr);
        rc = fetch(stored, *at + FIELD, size + after, &block, reterr);
        if (rc < 0)
                return rc;
        if (after && XXH32(block, size, 0) != load_le32(block + size))
                return damaged(run, stored->bytes, "a block's checksum does not fit", reterr);
        if (plain && size == want)
                memcpy(to, block, size);
        else if (plain || LZ4_decompress_safe_usingDict((const char *) block, (char *) to, (int) size, (int) want,
                                                        (const char *) dictionary, (int) dictionary_length) != (int) want)
                return damaged(run, stored->bytes, "a block does not hold what it should", reterr);
        *at += FIELD + size + after;
        return 0;
}

/* What stands behind the last block. */
static int check_end(Stored *stored, const Lz4Header *header, uint64_t at, const XXH32_state_t *hash, Reason *reterr) {
        size_t length = FIELD + (header->has_content_checksum ? FIELD : 0);
        const unsigned char *end;
        int rc = fetch(stored, at, length, &end, reterr);

        if (rc < 0)
                return rc;
        if (load_le32(end) != 0)
                return damaged(stored->run, stored->bytes, "it does not end where it should", reterr);
        if (header->has_content_checksum && XXH32_digest(hash) != load_le32(end + FIELD))
                return damaged(stored->run, stored->bytes, "the checksum of its content does not fit", reterr);
        return 0;
}

static int make_next(const Lz4Place *from, uint64_t at, const unsigned char *to, size_t length, const XXH32_state_t *hash,
                     Lz4Place **ret, Reason *reterr) {
        size_t kept = from->header.linked ? (size_t) min_u64(length, LZ4_WINDOW) : 0;
        Lz4Place *next = malloc(sizeof *next + kept);

        if (!next)
                return fail_oom(reterr);
        *next = (Lz4Place) {
                .header = from->header,
                .offset = at,
                .reached = from->reached + length,
                .hash = *hash,
                .dictionary_length = kept,
        };
        memcpy(next->dictionary, to + length - kept, kept);
        *ret = next;
        return 0;
}

int lz4_unpack(ByteStore *bytes, const Run *run, const Lz4Place *from, unsigned char *to, size_t length, Lz4Place **ret_next,
               Reason *reterr) {
        const Lz4Header *header = &from->header;
        const unsigned char *dictionary = from->dictionary;
        size_t dictionary_length = from->dictionary_length;
        Stored stored = { .bytes = bytes, .run = run };
        XXH32_state_t hash = from->hash;
        uint64_t at = from->offset;
        int rc = prepare(&stored, from, length, reterr);

        for (size_t done = 0; rc == 0 && done < length;) {
                size_t want = (size_t) min_u64(header->block_size, length - done);

                rc = unpack_block(&stored, header, &at, to + done, want, dictionary, dictionary_length, reterr);
                done += want;
                if (header->linked) {
                        dictionary_length = (size_t) min_u64(done, LZ4_WINDOW);
                        dictionary = to + done - dictionary_length;
                }
        }
        if (rc < 0)
                return rc;
        if (header->has_content_checksum)
                XXH32_update(&hash, to, length);
        if (from->reached + length == header->content)
                return check_end(&stored, header, at, &hash, reterr);
        return ret_next ? make_next(from, at, to, length, &hash, ret_next, reterr) : 0;
}
