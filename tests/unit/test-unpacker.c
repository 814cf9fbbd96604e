/* What zstd, gzip and lzop have packed comes out as it went in, whatever pieces it is taken in; damage is told. */
#include <errno.h>

#include "formats/byte-store.h"
#include "formats/vma/frames.h"
#include "formats/vma/unpacker.h"
#include "random.h"
#include "temporary.h"
#include "util/bytes.h"

#include <zlib.h>
#include <zstd.h>

#define LENGTH (3u << 20)

typedef struct MemoryStore {
        ByteStore store;
        const uint8_t *bytes;
} MemoryStore;

static int memory_read(ByteStore *store, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        memcpy(buffer, ((MemoryStore *) store)->bytes + offset, length);
        return 0;
}

static const ByteStoreOps memory_ops = { .read = memory_read };

static MemoryStore memory_store(const uint8_t *bytes, size_t length) {
        return (MemoryStore) { { .ops = &memory_ops, .size = length, .name = (char *) "memory" }, bytes };
}

static uint8_t *make_content(void) {
        uint8_t *bytes = malloc(LENGTH);

        CHECK(bytes);
        for (size_t at = 0; at < LENGTH; at += 4096)
                random_bytes(bytes + at, 4096);
        return bytes;
}

/* Takes it out in pieces of random length. */
static int unpack(const Packing *packing, const uint8_t *packed, size_t length, uint8_t *to, size_t *ret_length,
                  Reason *reason) {
        MemoryStore store = memory_store(packed, length);
        CLEANUP(unpacker_freep) Unpacker *unpacker = NULL;
        size_t done = 0, got, wanted;

        CHECK_INT(unpacker_new(packing, &store.store, &unpacker, reason), 0);
        do {
                int rc;

                wanted = 1 + random_below(300000);
                if (wanted > LENGTH + 1 - done)
                        wanted = LENGTH + 1 - done;
                rc = unpacker_read(unpacker, to + done, wanted, &got, reason);
                if (rc < 0)
                        return rc;
                done += got;
        } while (got == wanted && done <= LENGTH);
        *ret_length = done;
        return 0;
}

static size_t pack_gzip(const uint8_t *bytes, size_t length, uint8_t *to, size_t room) {
        z_stream stream = { 0 };

        CHECK_INT(deflateInit2(&stream, 1, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
        stream.next_in = (uint8_t *) bytes;
        stream.avail_in = (uInt) length;
        stream.next_out = to;
        stream.avail_out = (uInt) room;
        CHECK_INT(deflate(&stream, Z_FINISH), Z_STREAM_END);
        deflateEnd(&stream);
        return room - stream.avail_out;
}

static size_t pack_zstd(const uint8_t *bytes, size_t length, uint8_t *to, size_t room) {
        size_t packed = ZSTD_compress(to, room, bytes, length, 1);

        CHECK(!ZSTD_isError(packed));
        return packed;
}

/* In as many parts as are wanted, one behind the other; the length. */
static size_t pack_parts(const Packing *packing, const uint8_t *bytes, size_t part, uint8_t *to, size_t room) {
        size_t (*pack)(const uint8_t *, size_t, uint8_t *, size_t) = packing == &packing_gzip ? pack_gzip : pack_zstd;
        size_t length = 0;

        for (size_t at = 0; at < LENGTH; at += part)
                length += pack(bytes + at, min_u64(part, LENGTH - at), to + length, room - length);
        return length;
}

static void packed_bytes_come_out_as_they_went_in(void) {
        static const Packing *const packings[] = { &packing_gzip, &packing_zstd };
        static const size_t parts[] = { LENGTH, 1000003, 70000 };
        CLEANUP(freep) uint8_t *content = make_content(), *packed = malloc(2 * LENGTH), *out = malloc(LENGTH + 1);

        for (size_t p = 0; p < 2; p++)
                for (size_t i = 0; i < 3; i++) {
                        size_t length = pack_parts(packings[p], content, parts[i], packed, 2 * LENGTH), got;
                        Reason reason = REASON_INIT;

                        CHECK(packing_find(packed) == packings[p]);
                        CHECK_INT(unpack(packings[p], packed, length, out, &got, &reason), 0);
                        CHECK_INT(got, LENGTH);
                        CHECK(memcmp(out, content, LENGTH) == 0);
                }
}

static void what_is_cut_off_is_told(void) {
        static const Packing *const packings[] = { &packing_gzip, &packing_zstd };
        CLEANUP(freep) uint8_t *content = make_content(), *packed = malloc(2 * LENGTH), *out = malloc(LENGTH + 1);

        for (size_t p = 0; p < 2; p++) {
                size_t length = pack_parts(packings[p], content, LENGTH, packed, 2 * LENGTH), got;

                for (unsigned i = 0; i < 20; i++) {
                        size_t cut = i < 10 ? length - 1 - i : 20 + random_below(length - 30);
                        Reason reason = REASON_INIT;

                        CHECK_INT(unpack(packings[p], packed, cut, out, &got, &reason), -EBADMSG);
                        CHECK_SAYS(reason, "it is cut off");
                }
        }
}

static void zeroes_behind_gzip_are_no_harm_and_anything_else_is(void) {
        CLEANUP(freep) uint8_t *content = make_content(), *packed = calloc(2, LENGTH), *out = malloc(LENGTH + 1);
        size_t length = pack_parts(&packing_gzip, content, LENGTH, packed, 2 * LENGTH - 600000), got;
        Reason reason = REASON_INIT;

        memset(packed + length, 0, 600000);
        CHECK_INT(unpack(&packing_gzip, packed, length + 600000, out, &got, &reason), 0);
        CHECK_INT(got, LENGTH);
        packed[length + 599999] = 1;
        CHECK_INT(unpack(&packing_gzip, packed, length + 600000, out, &got, &reason), -EBADMSG);
        CHECK_SAYS(reason, "something that is not gzip's");
}

/* A stored block, which has no compression: what the tool makes of what does not shrink. */
static size_t make_lzop(uint8_t *to, const uint8_t *bytes, uint32_t length, uint32_t flags) {
        static const uint8_t magic[] = { 0x89, 'L', 'Z', 'O', 0, '\r', '\n', 0x1a, '\n' };
        size_t at;

        memset(to, 0, 64);
        memcpy(to, magic, 9);
        store_be16(to + 9, 0x1030);
        store_be16(to + 11, 0x20a0);
        store_be16(to + 13, 0x940);
        to[15] = 1;
        to[16] = 5;
        store_be32(to + 17, flags);
        store_be32(to + 34, (uint32_t) adler32(1, to + 9, 25));
        at = 38;
        store_be32(to + at, length);
        store_be32(to + at + 4, length);
        at += 8;
        if (flags & 1) {
                store_be32(to + at, (uint32_t) adler32(1, bytes, length));
                at += 4;
        }
        memcpy(to + at, bytes, length);
        at += length;
        store_be32(to + at, 0);
        return at + 4;
}

static void an_lzop_file_that_is_wrong_in_one_field_is_refused(void) {
        static const struct {
                size_t at;
                uint8_t value;
                const char *words; /* NULL: it is no harm */
        } wrong[] = {
                { 11, 7, "checksum of its header" },
                { 15, 4, "method 4" },
                { 18, 0x08, "checksum of its header" }, /* another flag */
                { 19, 0x08, "filters" },
                { 37, 1, "checksum of its header" },
                { 38, 0x7f, "impossible length" },
                { 40, 0, "no lzop header where one should be" },
                { 42, 0x01, "impossible length" },
                { 46, 1, "checksum of a block" },
                { 60, 1, "checksum of a block" },
                { 38 + 12 + 4096, 1, "cut off" }, /* the end's zero */
        };
        uint8_t content[4096], file[8192], *out = malloc(LENGTH + 1);

        memset(content, 0x33, sizeof content);
        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
                size_t length = make_lzop(file, content, sizeof content, 1), got;
                Reason reason = REASON_INIT;

                CHECK_INT(unpack(&packing_lzop, file, length, out, &got, &reason), 0);
                CHECK_INT(got, sizeof content);
                CHECK(memcmp(out, content, got) == 0);
                file[wrong[i].at] = wrong[i].value;
                CHECK(unpack(&packing_lzop, file, length, out, &got, &reason) < 0);
                CHECK_SAYS(reason, wrong[i].words);
        }
        free(out);
}

static void frames_are_read_at_any_place(void) {
        CLEANUP(freep) uint8_t *content = make_content(), *packed = malloc(2 * LENGTH), *out = malloc(LENGTH + 1);
        MemoryStore store = memory_store(packed, pack_parts(&packing_zstd, content, 100003, packed, 2 * LENGTH));
        CLEANUP(byte_store_freep) ByteStore *frames = NULL;
        atomic_bool cancel = false;
        Cache *memory;
        Reason reason = REASON_INIT;

        CHECK_INT(cache_new(1 << 20, &memory), 0);
        CHECK_INT(frames_open(&store.store, memory, &cancel, &frames, &reason), 0);
        CHECK_INT(byte_store_size(frames), LENGTH);
        for (unsigned i = 0; i < 300; i++) {
                uint64_t from = random_below(LENGTH), length = 1 + random_below(min_u64(300000, LENGTH - from));

                CHECK_INT(byte_store_read(frames, out, length, from, &reason), 0);
                CHECK(memcmp(out, content + from, length) == 0);
        }
        packed[50000] ^= 1;
        packed[50001] ^= 1;
        frames = byte_store_free(frames);
        CHECK_INT(frames_open(&store.store, memory, &cancel, &frames, &reason), 0);
        (void) byte_store_read(frames, out, 1, 0, &reason); /* zstd without checksums may not notice */
        CHECK_INT(byte_store_read(frames, out, 1000, LENGTH - 1000, &reason), 0);
        CHECK(memcmp(out, content + LENGTH - 1000, 1000) == 0);
        frames = byte_store_free(frames);
        atomic_store(&cancel, true);
        CHECK_INT(frames_open(&store.store, memory, &cancel, &frames, &reason), -ECANCELED);
        atomic_store(&cancel, false);
        store.store.size = pack_parts(&packing_zstd, content, LENGTH, packed, 2 * LENGTH);
        CHECK_INT(frames_open(&store.store, memory, &cancel, &frames, &reason), -ENOTSUP);
        CHECK_SAYS(reason, "it has one frame");
        cache_free(memory);
}

int main(void) {
        RUN(packed_bytes_come_out_as_they_went_in);
        RUN(what_is_cut_off_is_told);
        RUN(zeroes_behind_gzip_are_no_harm_and_anything_else_is);
        RUN(an_lzop_file_that_is_wrong_in_one_field_is_refused);
        RUN(frames_are_read_at_any_place);
        return unit_result();
}
