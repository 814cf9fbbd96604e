/* Codecs give back what they took, in as many bytes as they say, and never touch more. */
#include <errno.h>
#include <pthread.h>

#include "codec/codec.h"
#include "random.h"
#include "unit.h"
#include "util/cleanup.h"

static const char *const names[] = { "none", "lz4", "zstd" };

static void codecs_are_found_by_name_and_number(void) {
        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                const Codec *codec = codec_by_name(names[i]);

                CHECK(codec && codec == codec_by_id((uint32_t) i));
                CHECK_TEXT(codec->name, names[i]);
        }
        CHECK(!codec_by_name("") && !codec_by_name("LZ4") && !codec_by_id(3) && !codec_by_id(UINT32_MAX));
}

/* Exact allocations, so that a sanitizer sees a byte too many. */
static void check_round_trip(const Codec *codec, size_t length) {
        CLEANUP(freep) uint8_t *raw = malloc(length), *packed = malloc(length + 1), *back = malloc(length), *exact = NULL;
        size_t packed_length;

        random_bytes(raw, length);
        packed_length = codec->compress(raw, length, packed, length - 1, codec->default_level);
        CHECK(packed_length < length);
        if (packed_length == 0)
                return;
        exact = malloc(packed_length);
        memcpy(exact, packed, packed_length);
        CHECK_INT(codec->decompress(exact, packed_length, back, length), 0);
        CHECK(memcmp(raw, back, length) == 0);
        if (length > 1)
                CHECK_INT(codec->decompress(exact, packed_length, back, length - 1), -EBADMSG);
        CHECK_INT(codec->decompress(exact, packed_length - 1, back, length), -EBADMSG);
        if (codec->decompress_start) {
                size_t start_length = random_below(length) + 1;
                CLEANUP(freep) uint8_t *start = malloc(start_length);

                CHECK_INT(codec->decompress_start(exact, packed_length, start, start_length), 0);
                CHECK(memcmp(raw, start, start_length) == 0);
                CHECK_INT(codec->decompress_start(exact, packed_length - 1, back, length), -EBADMSG);
        }
}

static void blocks_come_back_the_same(void) {
        for (unsigned round = 0; round < 600; round++)
                check_round_trip(codec_by_id(round % 3), 1 + random_below(round % 10 ? 70000 : 2 << 20));
        for (size_t length = 1; length < 100; length++)
                for (uint32_t id = 0; id < 3; id++)
                        check_round_trip(codec_by_id(id), length);
}

static void a_longer_or_shorter_result_is_refused(void) {
        static const uint8_t raw[4096];
        uint8_t packed[4096], back[8192];

        for (uint32_t id = 1; id < 3; id++) {
                const Codec *codec = codec_by_id(id);
                size_t length = codec->compress(raw, sizeof raw, packed, sizeof packed, codec->default_level);

                CHECK(length > 0);
                CHECK_INT(codec->decompress(packed, length, back, 4096), 0);
                CHECK_INT(codec->decompress(packed, length, back, 4095), -EBADMSG);
                CHECK_INT(codec->decompress(packed, length, back, 4097), -EBADMSG);
        }
}

static void any_bytes_decompress_without_harm(void) {
        for (unsigned round = 0; round < 20000; round++) {
                const Codec *codec = codec_by_id(round % 3);
                size_t length = 1 + random_below(400), to_length = 1 + random_below(4000);
                CLEANUP(freep) uint8_t *from = malloc(length), *to = malloc(to_length), *raw = calloc(1, to_length);
                size_t packed;

                /* Half begin as good ones. */
                random_bytes(raw, to_length / 8);
                packed = round % 2 ? codec->compress(raw, to_length, from, length, codec->default_level) : 0;
                if (packed > 0)
                        from[random_below(packed)] ^= (uint8_t) (1 << random_below(8));
                else
                        random_bytes(from, length);
                (void) codec->decompress(from, packed > 0 ? packed : length, to, to_length);
                if (codec->decompress_start)
                        (void) codec->decompress_start(from, packed > 0 ? packed : length, to, to_length);
        }
}

static void *round_trips(void *context) {
        const uint8_t *raw = context;
        uint8_t packed[8192], back[8192];

        for (unsigned i = 0; i < 300; i++) {
                const Codec *codec = codec_by_id(1 + i % 2);
                size_t length = codec->compress(raw, sizeof back, packed, sizeof packed, codec->default_level);

                CHECK(length > 0);
                CHECK_INT(codec->decompress(packed, length, back, sizeof back), 0);
                CHECK(memcmp(raw, back, sizeof back) == 0);
        }
        return NULL;
}

static void threads_do_not_disturb_each_other(void) {
        enum { THREADS = 4, LENGTH = 8192 };
        static uint8_t raw[THREADS][LENGTH];
        pthread_t threads[THREADS];

        for (int i = 0; i < THREADS; i++) {
                for (size_t j = 0; j < LENGTH; j++)
                        raw[i][j] = (uint8_t) (random_u64() % 4 * (unsigned) (i + 1));
                CHECK_INT(pthread_create(&threads[i], NULL, round_trips, raw[i]), 0);
        }
        for (int i = 0; i < THREADS; i++)
                CHECK_INT(pthread_join(threads[i], NULL), 0);
}

int main(void) {
        RUN(codecs_are_found_by_name_and_number);
        RUN(blocks_come_back_the_same);
        RUN(a_longer_or_shorter_result_is_refused);
        RUN(any_bytes_decompress_without_harm);
        RUN(threads_do_not_disturb_each_other);
        return unit_result();
}
