/* Streams of virtnbdbackup as layers: what they hold, what they do not, and what is wrong with them. */
#include <errno.h>
#include <sys/stat.h>

#include "formats/found.h"
#include "formats/layer.h"
#include "stream-maker.h"
#include "util/bytes.h"
#include "util/parallel.h"

#define DATE "2026-11-20T01:02:03.123456"
#define MEMORY (64u << 20)

static TemporaryDirectory place;

static int open_stream(LayerStore *store, const char *name, Layer **ret, Reason *reason) {
        struct stat st;

        CHECK_INT(fstatat(place.fd, name, &st, 0), 0);
        return layer_open(store, &(LayerLocation) { "virtnbdbackup", name, NULL, (uint64_t) st.st_size, found_seal(&st) },
                          ret, reason);
}

/* The stream as it was made, opened. */
static Layer *open_made(LayerStore *store, const StreamMaker *maker) {
        Reason reason = REASON_INIT;
        Layer *layer;

        stream_write(maker, place.fd, "vda.full.data");
        if (open_stream(store, "vda.full.data", &layer, &reason) < 0) {
                fprintf(stderr, "%s\n", reason.text);
                exit(1);
        }
        return layer;
}

static LayerStore *new_store(size_t memory) {
        LayerStore *store;

        CHECK_INT(layer_store_new(place.fd, memory, &store), 0);
        return store;
}

/* The states of the disk as a text: "data 0 4096, zero 4096 8192". */
static const char *tell_extents(Layer *layer) {
        static char text[4096];
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        Reason reason = REASON_INIT;
        size_t length = 0;

        CHECK(layer_extents(layer, 0, layer_disk_size(layer), &map, &reason) >= 0);
        text[0] = '\0';
        for (size_t i = 0; i < extent_map_count(map); i++) {
                const Extent *extent = extent_map_get(map, i);

                length += (size_t) snprintf(text + length, sizeof text - length, "%s%s %" PRIu64 " %" PRIu64, i ? ", " : "",
                                            extent->state == EXTENT_DATA   ? "data"
                                            : extent->state == EXTENT_ZERO ? "zero"
                                                                           : "unreadable",
                                            extent->start, extent->length);
        }
        return text;
}

/* Reads a range and compares it with what it has to be. */
static void check_read(Layer *layer, const char *truth, uint64_t offset, size_t length) {
        CLEANUP(freep) char *got = malloc(length + 1);
        Reason reason = REASON_INIT;

        if (layer_read(layer, got, length, offset, &reason) < 0) {
                fprintf(stderr, "%s\n", reason.text);
                exit(1);
        }
        CHECK_INT(memcmp(got, truth + offset, length), 0);
}

static void frames_are_read_as_they_lie(void) {
        CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
        StreamMaker maker = stream_maker_new(false, 32u << 20);
        CLEANUP(freep) char *truth = stream_noise(1u << 20);
        CLEANUP(layer_unrefp) Layer *layer = NULL;

        stream_meta(&maker, 1u << 20, "vda", "virtnbdbackup.0", "", false, DATE);
        stream_data(&maker, 0, truth, 70000);
        stream_header(&maker, "zero", 70000, 30000);
        stream_data(&maker, 100000, truth + 100000, 512);
        stream_data(&maker, 100512, truth + 100512, (1u << 20) - 100512);
        stream_end(&maker);
        layer = open_made(store, &maker);
        CHECK_TEXT(tell_extents(layer), "data 0 70000, zero 70000 30000, data 100000 948576");
        check_read(layer, truth, 0, 70000);
        check_read(layer, truth, 100000, 948576);
        check_read(layer, truth, 100500, 100);
        check_read(layer, truth, 69999, 1);
        stream_maker_clear(&maker);
}

static void what_no_frame_tells_of_is_absent_in_an_increment_and_zeroes_in_a_base(void) {
        for (int incremental = 0; incremental < 2; incremental++) {
                CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
                StreamMaker maker = stream_maker_new(false, 32u << 20);
                CLEANUP(layer_unrefp) Layer *layer = NULL;
                Reason reason = REASON_INIT;
                char byte;

                stream_meta(&maker, 10000, "vda", "virtnbdbackup.1", "virtnbdbackup.0", incremental, DATE);
                stream_data(&maker, 1000, "0123456789", 10);
                stream_data(&maker, 9990, "0123456789", 10);
                stream_end(&maker);
                layer = open_made(store, &maker);
                CHECK_TEXT(tell_extents(layer), incremental
                                                        ? "data 1000 10, data 9990 10"
                                                        : "zero 0 1000, data 1000 10, zero 1010 8980, data 9990 10");
                CHECK_INT(layer_read(layer, &byte, 1, 999, &reason), -EIO);
                CHECK_SAYS(reason, "has no data at 999");
                stream_maker_clear(&maker);
        }
}

static void what_a_disk_has_grown_by_is_zeroes_in_its_increment(void) {
        CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
        StreamMaker maker = stream_maker_new(false, 32u << 20);
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        Reason reason = REASON_INIT;
        struct stat st;

        stream_meta(&maker, 10000, "vda", "virtnbdbackup.1", "virtnbdbackup.0", true, DATE);
        stream_data(&maker, 1000, "0123456789", 10);
        stream_data(&maker, 9000, "0123456789", 10);
        stream_end(&maker);
        stream_write(&maker, place.fd, "grown.data");
        CHECK_INT(fstatat(place.fd, "grown.data", &st, 0), 0);
        for (size_t i = 0; i < 3; i++) {
                static const char *const members[] = { "8000:", "8000", "-1:" };
                uint64_t size = (uint64_t) st.st_size;
                LayerLocation location = { "virtnbdbackup", "grown.data", members[i], size, found_seal(&st) };

                CHECK_INT(layer_open(store, &location, &layer, &reason), i ? -EBADMSG : 0);
        }
        CHECK_SAYS(reason, "is nothing that can be in it");
        CHECK_TEXT(tell_extents(layer), "data 1000 10, zero 8000 1000, data 9000 10, zero 9010 990");
        stream_maker_clear(&maker);
}

static void an_empty_increment_has_nothing(void) {
        CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
        StreamMaker maker = stream_maker_new(true, 32u << 20);
        CLEANUP(layer_unrefp) Layer *layer = NULL;

        stream_meta(&maker, 1u << 30, "vda", "virtnbdbackup.1", "virtnbdbackup.0", true, DATE);
        stream_end(&maker);
        layer = open_made(store, &maker);
        CHECK_INT(layer_disk_size(layer), 1u << 30);
        CHECK_TEXT(tell_extents(layer), "");
        stream_maker_clear(&maker);
}

/* A stream of several data frames, one with a list of LZ4 frames. */
static void make_compressed(StreamMaker *maker, const char *truth, size_t size) {
        stream_meta(maker, size, "vda", "virtnbdbackup.0", "", false, DATE);
        stream_data(maker, 0, truth, 4096);
        stream_header(maker, "zero", 4096, 4096);
        stream_data(maker, 8192, truth + 8192, 300000);
        stream_data(maker, 400000, truth + 400000, size - 500000); /* at_once is less than this */
        stream_header(maker, "zero", size - 100000, 40000);
        stream_data(maker, size - 60000, truth + size - 60000, 60000);
        stream_end(maker);
}

#define COMPRESSED_EXTENTS "data 0 4096, zero 4096 4096, data 8192 300000, zero 308192 91808, data 400000 6791456, " \
                           "zero 7191456 40000, data 7231456 60000"
#define COMPRESSED_SIZE 7291456u

static void check_compressed(Layer *layer, const char *truth) {
        CHECK_TEXT(tell_extents(layer), COMPRESSED_EXTENTS);
        check_read(layer, truth, 400000, COMPRESSED_SIZE - 500000);
        check_read(layer, truth, 8192, 300000);
        check_read(layer, truth, COMPRESSED_SIZE - 60000, 60000);
        for (int i = 0; i < 200; i++) {
                uint64_t offset = 400000 + random_below(COMPRESSED_SIZE - 500000);
                size_t length = 1 + (size_t) random_below(min_u64(300000, COMPRESSED_SIZE - 100000 - offset));

                check_read(layer, truth, offset, length);
        }
}

static void compressed_frames_are_read_anywhere(void) {
        static const size_t memories[] = { 0, 300000, MEMORY };
        CLEANUP(freep) char *truth = stream_noise(COMPRESSED_SIZE);

        for (size_t i = 0; i < 3; i++) {
                CLEANUP(layer_store_freep) LayerStore *store = new_store(memories[i]);
                StreamMaker maker = stream_maker_new(true, 2500000);
                CLEANUP(layer_unrefp) Layer *layer = NULL;

                make_compressed(&maker, truth, COMPRESSED_SIZE);
                layer = open_made(store, &maker);
                check_compressed(layer, truth);
                stream_maker_clear(&maker);
        }
}

/* All that this process has read so far, of whatever. */
static uint64_t bytes_read(void) {
        FILE *f = fopen("/proc/self/io", "re");
        uint64_t bytes = 0;

        CHECK(f);
        CHECK_INT(fscanf(f, "rchar: %" SCNu64, &bytes), 1);
        fclose(f);
        return bytes;
}

static void who_reads_here_and_there_goes_on_from_landmarks(void) {
        enum { SIZE = 15000000, FAR = 5000000 };
        CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
        CLEANUP(freep) char *truth = stream_noise(SIZE);
        StreamMaker maker = stream_maker_new(true, 32u << 20);
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        uint64_t before;

        stream_meta(&maker, SIZE, "vda", "virtnbdbackup.0", "", false, DATE);
        stream_data(&maker, 0, truth, SIZE);
        stream_end(&maker);
        layer = open_made(store, &maker);
        check_read(layer, truth, SIZE - 100000, 4096);
        before = bytes_read();
        for (uint64_t at = SIZE - 100000 - FAR, i = 0; i < 12; i++, at = (at + FAR) % (SIZE - 4096))
                check_read(layer, truth, at, 4096);
        CHECK(bytes_read() - before < (uint64_t) 12 * maker.length / 4);
        stream_maker_clear(&maker);
}

typedef struct Readers {
        Layer *layer;
        const char *truth;
} Readers;

static void read_here_and_there(void *context, size_t index) {
        const Readers *readers = context;
        char got[70000];

        for (uint64_t i = 0; i < 40; i++) {
                uint64_t offset = 400000 + (index * 7919 + i * 104729 + i * i * 31337) % (COMPRESSED_SIZE - 570000);

                CHECK_INT(layer_read(readers->layer, got, sizeof got, offset, NULL), 0);
                CHECK_INT(memcmp(got, readers->truth + offset, sizeof got), 0);
        }
}

static void many_threads_read_at_once(void) {
        CLEANUP(layer_store_freep) LayerStore *store = new_store(1u << 20);
        CLEANUP(freep) char *truth = stream_noise(COMPRESSED_SIZE);
        StreamMaker maker = stream_maker_new(true, 2500000);
        CLEANUP(layer_unrefp) Layer *layer = NULL;

        make_compressed(&maker, truth, COMPRESSED_SIZE);
        layer = open_made(store, &maker);
        parallel_for(16, 8, read_here_and_there, &(Readers) { layer, truth });
        stream_maker_clear(&maker);
}

/* The trailer cut off at any place, or with a wrong number in it. */
static void a_lost_list_of_sizes_is_made_anew(void) {
        CLEANUP(freep) char *truth = stream_noise(COMPRESSED_SIZE);
        StreamMaker maker = stream_maker_new(true, 2500000);
        size_t trailer, whole;

        make_compressed(&maker, truth, COMPRESSED_SIZE);
        whole = maker.length;
        trailer = whole - 42 - (maker.trailer_length + 1);
        for (int i = 0; i < 6; i++) {
                size_t lengths[] = { trailer, trailer + 1, trailer + maker.trailer_length, whole - 1, whole - 40, whole };
                CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
                CLEANUP(layer_unrefp) Layer *layer = NULL;

                maker.length = lengths[i];
                if (lengths[i] == whole)
                        maker.bytes[trailer + 1]++; /* the first size */
                layer = open_made(store, &maker);
                check_compressed(layer, truth);
        }
        stream_maker_clear(&maker);
}

static void a_list_of_sizes_that_makes_no_sense_is_not_used(void) {
        static const char *const lists[] = {
                "[]", "", "[1, 2, 3, 4]", "[{\"1\": [1]}]", "[{\"7\": [1, 2, 3, 4]", "[-1]", "[99999999999999999999999]",
                "{}", "[[[[[[[[", "[\"1\"]", "[18446744073709551615, 18446744073709551615]", "[1.5]",
        };
        CLEANUP(freep) char *truth = stream_noise(COMPRESSED_SIZE);
        StreamMaker maker = stream_maker_new(true, 2500000);
        size_t trailer;

        make_compressed(&maker, truth, COMPRESSED_SIZE);
        trailer = maker.length - 42 - (maker.trailer_length + 1);
        for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
                CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
                CLEANUP(layer_unrefp) Layer *layer = NULL;

                maker.length = trailer;
                stream_text(&maker, lists[i]);
                stream_text(&maker, "\r\n");
                stream_header(&maker, "comp", 0, strlen(lists[i]));
                layer = open_made(store, &maker);
                check_compressed(layer, truth);
        }
        stream_maker_clear(&maker);
}

static void a_compression_level_of_zero_is_compressed_and_has_no_list(void) {
        CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
        CLEANUP(freep) char *truth = stream_noise(200000);
        StreamMaker maker = stream_maker_new(true, 100000);
        CLEANUP(layer_unrefp) Layer *layer = NULL;

        stream_meta_text(&maker, "{\"virtualSize\": 200000, \"compressed\": 0, \"incremental\": false, "
                                 "\"parentCheckpoint\": \"\", \"streamVersion\": 2}");
        stream_data(&maker, 0, truth, 200000);
        stream_header(&maker, "stop", 0, 0);
        layer = open_made(store, &maker);
        CHECK_TEXT(tell_extents(layer), "data 0 200000");
        check_read(layer, truth, 0, 200000);
        stream_maker_clear(&maker);
}

/* November 2020, then until May 2021, then release 0.22 and on with a truth value for the level. */
static void metadata_of_all_versions_are_known(void) {
        static const struct {
                const char *json;
                bool compressed;
        } versions[] = {
                { "{\"virtual-size\": 200000, \"data-size\": 200000, \"date\": \"2020-11-12T20:33:34.349705\", "
                  "\"disk_name\": \"sda\", \"disk_uuid\": \"1\", \"incremental\": false, \"stream-version\": 1}", false },
                { "{\"virtualSize\": 200000, \"dataSize\": 200000, \"date\": \"2020-11-15T20:50:36.448938\", "
                  "\"diskName\": \"sda\", \"checkpointName\": \"virtnbdbackup\", \"parentCheckpoint\": false, "
                  "\"incremental\": false, \"stream-version\": 1}", false },
                { "{\"virtualSize\": 200000, \"dataSize\": 0, \"date\": \"2021-05-18T20:50:36\", \"diskName\": \"sda\", "
                  "\"checkpointName\": \"virtnbdbackup.0\", \"parentCheckpoint\": false, \"incremental\": false, "
                  "\"streamVersion\": 1}", false },
                { "{\"virtualSize\": 200000, \"dataSize\": 0, \"date\": \"2021-06-18T20:50:36.1\", \"diskName\": \"sda\", "
                  "\"checkpointName\": \"virtnbdbackup.0\", \"compressed\": true, \"compressionMethod\": \"lz4\", "
                  "\"parentCheckpoint\": \"\", \"incremental\": false, \"streamVersion\": 2}", true },
        };

        for (size_t i = 0; i < sizeof versions / sizeof *versions; i++) {
                CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
                CLEANUP(freep) char *truth = stream_noise(200000);
                StreamMaker maker = stream_maker_new(versions[i].compressed, 32u << 20);
                CLEANUP(layer_unrefp) Layer *layer = NULL;

                stream_meta_text(&maker, versions[i].json);
                stream_data(&maker, 0, truth, 200000);
                stream_end(&maker);
                layer = open_made(store, &maker);
                CHECK_INT(layer_disk_size(layer), 200000);
                check_read(layer, truth, 1, 199999);
                stream_maker_clear(&maker);
        }
}

static void frames_without_number_are_found(void) {
        enum { FRAMES = 20000, PIECE = 16 };
        CLEANUP(freep) char *truth = stream_noise(FRAMES * PIECE * 2);
        static const size_t memories[] = { 0, MEMORY };

        for (size_t m = 0; m < 2; m++) {
                CLEANUP(layer_store_freep) LayerStore *store = new_store(memories[m]);
                StreamMaker maker = stream_maker_new(false, 32u << 20);
                CLEANUP(layer_unrefp) Layer *layer = NULL;

                stream_meta(&maker, FRAMES * PIECE * 2, "vda", "virtnbdbackup.1", "virtnbdbackup.0", true, DATE);
                for (uint64_t i = 0; i < FRAMES; i++)
                        stream_data(&maker, i * PIECE * 2, truth + i * PIECE * 2, PIECE);
                stream_end(&maker);
                layer = open_made(store, &maker);
                for (int i = 0; i < 1000; i++) {
                        uint64_t frame = random_below(FRAMES);
                        CLEANUP(extent_map_freep) ExtentMap *map = NULL;

                        check_read(layer, truth, frame * PIECE * 2, PIECE);
                        CHECK_INT(layer_extents(layer, frame * PIECE * 2 + PIECE, PIECE, &map, NULL), 0);
                        CHECK_INT(extent_map_count(map), 0);
                }
                stream_maker_clear(&maker);
        }
}

/* What lies before the place is whole, what lies behind it is said to be lost. */
static void a_stream_that_has_been_cut_off_is_read_up_to_there(void) {
        for (int compressed = 0; compressed < 2; compressed++) {
                CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
                CLEANUP(freep) char *truth = stream_noise(300000);
                StreamMaker maker = stream_maker_new(compressed, 32u << 20);
                CLEANUP(layer_unrefp) Layer *layer = NULL;
                Reason reason = REASON_INIT;
                char byte;

                stream_meta(&maker, 300000, "vda", "virtnbdbackup.0", "", false, DATE);
                stream_data(&maker, 0, truth, 100000);
                stream_data(&maker, 100000, truth + 100000, 200000);
                maker.length -= 5;
                layer = open_made(store, &maker);
                CHECK_TEXT(tell_extents(layer), "data 0 100000, unreadable 100000 200000");
                check_read(layer, truth, 0, 100000);
                CHECK_INT(layer_read(layer, &byte, 1, 100000, &reason), -EIO);
                CHECK_SAYS(reason, "cut off");
                stream_maker_clear(&maker);
        }
}

/* A flipped bit in compressed data or in what goes with it: right bytes or an error. */
static void damaged_frames_never_give_wrong_bytes(void) {
        enum { SIZE = 700000 };
        CLEANUP(freep) char *truth = stream_noise(SIZE), *got = malloc(SIZE);
        StreamMaker maker = stream_maker_new(true, 32u << 20);
        size_t begin, refused = 0;

        stream_meta(&maker, SIZE, "vda", "virtnbdbackup.0", "", false, DATE);
        begin = maker.length + 40;
        stream_data(&maker, 0, truth, SIZE);
        stream_end(&maker);
        for (int i = 0; i < 300; i++) {
                CLEANUP(layer_store_freep) LayerStore *store = new_store(i % 2 ? MEMORY : 0);
                size_t at = i < 40 ? begin + (size_t) i : begin + (size_t) random_below(maker.length - begin);
                char flip = (char) (1 << random_below(8));
                Layer *layer;

                maker.bytes[at] ^= flip;
                layer = open_made(store, &maker);
                for (int j = 0; j < 10; j++) {
                        uint64_t offset = j == 0 ? 0 : random_below(SIZE);
                        size_t length = j == 0 ? SIZE : 1 + (size_t) random_below(min_u64(100000, SIZE - offset));

                        if (layer_read(layer, got, length, offset, NULL) == 0)
                                CHECK_INT(memcmp(got, truth + offset, length), 0);
                        else
                                refused++;
                }
                layer_unref(layer);
                maker.bytes[at] ^= flip;
        }
        CHECK(refused > 300);
        stream_maker_clear(&maker);
}

static void what_lies_before_a_damaged_block_stays_readable(void) {
        enum { SIZE = 2000000 };
        CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
        CLEANUP(freep) char *truth = stream_noise(SIZE);
        StreamMaker maker = stream_maker_new(true, 32u << 20);
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        Reason reason = REASON_INIT;
        char got[100];
        size_t good = 0;

        stream_meta(&maker, SIZE, "vda", "virtnbdbackup.0", "", false, DATE);
        stream_data(&maker, 0, truth, SIZE);
        maker.bytes[maker.length / 2] ^= 4;
        stream_end(&maker);
        layer = open_made(store, &maker);
        for (uint64_t at = 0; at + sizeof got <= SIZE; at += 65536 / 4) {
                if (layer_read(layer, got, sizeof got, at, &reason) == 0) {
                        CHECK_INT(memcmp(got, truth + at, sizeof got), 0);
                        good = at;
                } else
                        CHECK_SAYS(reason, "a block's checksum does not fit");
        }
        CHECK(good > SIZE / 2 - 200000 && good < SIZE / 2 + 200000);
        stream_maker_clear(&maker);
}

static void check_refused(const StreamMaker *maker, int expected, const char *words) {
        CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
        Reason reason = REASON_INIT;
        Layer *layer;
        int rc;

        stream_write(maker, place.fd, "vda.full.data");
        rc = open_stream(store, "vda.full.data", &layer, &reason);
        if (rc == 0) {
                char bytes[512];

                rc = layer_read(layer, bytes, sizeof bytes, 4096, &reason);
                layer_unref(layer);
        }
        CHECK_SAYS(reason, words);
        CHECK_INT(rc, expected);
}

static void metadata_with_one_wrong_field_is_refused_in_words(void) {
        static const struct {
                const char *json;
                int rc;
                const char *words;
        } cases[] = {
                { "", -EBADMSG, "no JSON object" },
                { "[1]", -EBADMSG, "no JSON object" },
                { "{\"dataSize\": 1}", -EBADMSG, "no size of the disk" },
                { "{\"virtualSize\": \"8192\"}", -EBADMSG, "no size of the disk" },
                { "{\"virtualSize\": -1}", -EBADMSG, "no size of the disk" },
                { "{\"virtualSize\": 9223372036854775808}", -EBADMSG, "no JSON object" },
                { "{\"virtualSize\": 8192, \"streamVersion\": \"2\"}", -EBADMSG, "strange version" },
                { "{\"virtualSize\": 8192, \"streamVersion\": 3}", -ENOTSUP, "stream version 3, which is not known" },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                StreamMaker maker = stream_maker_new(false, 32u << 20);

                stream_meta_text(&maker, cases[i].json);
                stream_end(&maker);
                check_refused(&maker, cases[i].rc, cases[i].words);
                stream_maker_clear(&maker);
        }
}

static void headers_with_one_wrong_field_are_refused_in_words(void) {
        static const struct {
                const char *kind;
                uint64_t start, length;
                const char *words;
        } cases[] = {
                { "data", 0, 0, "it is empty" },
                { "zero", 8192, 0, "it is empty" },
                { "data", 100, 5000, "begins before the last one's end" },
                { "data", 4096, 4097, "it passes the disk's end" },
                { "zero", 4096, UINT64_MAX, "it passes the disk's end" },
                { "data", UINT64_MAX, 1, "it passes the disk's end" },
                { "meta", 0, 4, "of a kind that does not belong here" },
                { "comp", 0, 4, "of a kind that does not belong here" },
                { "DATA", 4096, 4096, "there is none" },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                StreamMaker maker = stream_maker_new(false, 32u << 20);
                char bytes[8192] = "";

                stream_meta(&maker, 8192, "vda", "virtnbdbackup.0", "", false, DATE);
                stream_data(&maker, 0, bytes, 512);
                stream_header(&maker, cases[i].kind, cases[i].start, cases[i].length);
                stream_bytes(&maker, bytes, 4096);
                stream_text(&maker, "\r\n");
                stream_end(&maker);
                check_refused(&maker, -EIO, cases[i].words);
                stream_maker_clear(&maker);
        }
}

static void a_file_that_begins_as_no_stream_is_refused(void) {
        static const char *const begins[] = {
                "meta 0000000000000000 0000000000000002\r\n{", "meta 0000000000000000 00000000ffffffff\r\n{}\r\n",
                "meta 0000000000000001 0000000000000002\r\n{}\r\n", "meta 0000000000000000 000000000000000G\r\n{}\r\n",
                "data 0000000000000000 0000000000000002\r\n{}\r\n", "meta", "",
        };
        static const char *const words[] = { "cut off in its metadata", "its metadata is too long", "does not begin as",
                                             "does not begin as",       "does not begin as",        "does not begin as",
                                             "does not begin as" };

        for (size_t i = 0; i < sizeof begins / sizeof *begins; i++) {
                StreamMaker maker = stream_maker_new(false, 32u << 20);

                stream_text(&maker, begins[i]);
                check_refused(&maker, -EBADMSG, words[i]);
                stream_maker_clear(&maker);
        }
}

static void a_file_that_another_replaced_is_not_read(void) {
        CLEANUP(layer_store_freep) LayerStore *store = new_store(MEMORY);
        StreamMaker maker = stream_maker_new(false, 32u << 20);
        Reason reason = REASON_INIT;
        struct stat st;
        Layer *layer;

        stream_meta(&maker, 8192, "vda", "virtnbdbackup.0", "", false, DATE);
        stream_end(&maker);
        stream_write(&maker, place.fd, "vda.full.data");
        CHECK_INT(fstatat(place.fd, "vda.full.data", &st, 0), 0);
        CHECK_INT(layer_open(store,
                             &(LayerLocation) { "virtnbdbackup", "vda.full.data", NULL, (uint64_t) st.st_size,
                                                found_seal(&st) + 1 },
                             &layer, &reason),
                  -EIO);
        CHECK_SAYS(reason, "is another file than it was");
        stream_maker_clear(&maker);
}

int main(void) {
        place = temporary_directory();
        RUN(frames_are_read_as_they_lie);
        RUN(what_no_frame_tells_of_is_absent_in_an_increment_and_zeroes_in_a_base);
        RUN(what_a_disk_has_grown_by_is_zeroes_in_its_increment);
        RUN(an_empty_increment_has_nothing);
        RUN(compressed_frames_are_read_anywhere);
        RUN(who_reads_here_and_there_goes_on_from_landmarks);
        RUN(many_threads_read_at_once);
        RUN(a_lost_list_of_sizes_is_made_anew);
        RUN(a_list_of_sizes_that_makes_no_sense_is_not_used);
        RUN(a_compression_level_of_zero_is_compressed_and_has_no_list);
        RUN(metadata_of_all_versions_are_known);
        RUN(frames_without_number_are_found);
        RUN(a_stream_that_has_been_cut_off_is_read_up_to_there);
        RUN(damaged_frames_never_give_wrong_bytes);
        RUN(what_lies_before_a_damaged_block_stays_readable);
        RUN(metadata_with_one_wrong_field_is_refused_in_words);
        RUN(headers_with_one_wrong_field_are_refused_in_words);
        RUN(a_file_that_begins_as_no_stream_is_refused);
        RUN(a_file_that_another_replaced_is_not_read);
        temporary_directory_clear(&place);
        return unit_result();
}
