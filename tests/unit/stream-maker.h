/* tests/unit/stream-maker.h - writes streams as virtnbdbackup does, or not quite as it does. */
#pragma once

#include <lz4frame.h>
#include <lz4frame_static.h>
#include <stdbool.h>

#include "random.h"
#include "temporary.h"
#include "util/io.h"

#define STREAM_MAKER_MAX (64u << 20)

typedef struct StreamMaker {
        char *bytes;
        size_t length;
        char trailer[65536];
        size_t trailer_length;
        bool compressed;
        size_t at_once; /* bytes of the disk in each LZ4 frame: the largest request that the server takes */
} StreamMaker;

static inline StreamMaker stream_maker_new(bool compressed, size_t at_once) {
        StreamMaker maker = { .bytes = malloc(STREAM_MAKER_MAX), .compressed = compressed, .at_once = at_once };

        CHECK(maker.bytes);
        maker.trailer_length = (size_t) sprintf(maker.trailer, "[");
        return maker;
}

static inline void stream_maker_clear(StreamMaker *maker) {
        free(maker->bytes);
}

static inline void stream_bytes(StreamMaker *maker, const void *bytes, size_t length) {
        CHECK(length <= STREAM_MAKER_MAX - maker->length);
        memcpy(maker->bytes + maker->length, bytes, length);
        maker->length += length;
}

static inline void stream_text(StreamMaker *maker, const char *text) {
        stream_bytes(maker, text, strlen(text));
}

static inline void stream_header(StreamMaker *maker, const char *kind, uint64_t start, uint64_t length) {
        char text[64];

        CHECK_INT(snprintf(text, sizeof text, "%s %016" PRIx64 " %016" PRIx64 "\r\n", kind, start, length), 40);
        stream_text(maker, text);
}

static inline void stream_meta_text(StreamMaker *maker, const char *json) {
        stream_header(maker, "meta", 0, strlen(json));
        stream_text(maker, json);
        stream_text(maker, "\r\n");
}

/* As today's versions write them. parent "": none. */
static inline void stream_meta(StreamMaker *maker, uint64_t size, const char *disk, const char *checkpoint,
                               const char *parent, bool incremental, const char *date) {
        char json[2048];

        snprintf(json, sizeof json,
                 "{\n    \"virtualSize\": %" PRIu64 ",\n    \"dataSize\": 0,\n    \"date\": \"%s\",\n"
                 "    \"diskName\": \"%s\",\n    \"diskFormat\": \"qcow2\",\n    \"checkpointName\": \"%s\",\n"
                 "    \"compressed\": %s,\n"
                 "    \"compressionMethod\": \"lz4\",\n    \"parentCheckpoint\": \"%s\",\n    \"incremental\": %s,\n"
                 "    \"streamVersion\": 2\n}",
                 size, date, disk, checkpoint, maker->compressed ? "2" : "false", parent, incremental ? "true" : "false");
        stream_meta_text(maker, json);
}

static inline size_t stream_lz4(StreamMaker *maker, const void *bytes, size_t length) {
        LZ4F_preferences_t preferences = {
                .frameInfo = { .contentSize = length, .contentChecksumFlag = 1, .blockChecksumFlag = 1 },
        };
        size_t packed = LZ4F_compressFrame(maker->bytes + maker->length, STREAM_MAKER_MAX - maker->length, bytes, length,
                                           &preferences);

        CHECK(!LZ4F_isError(packed));
        maker->length += packed;
        return packed;
}

static inline void stream_note_sizes(StreamMaker *maker, const char *text) {
        maker->trailer_length += (size_t) snprintf(maker->trailer + maker->trailer_length,
                                                   sizeof maker->trailer - maker->trailer_length, "%s%s",
                                                   maker->trailer_length > 1 ? ", " : "", text);
        CHECK(maker->trailer_length < sizeof maker->trailer);
}

static inline void stream_payload_lz4(StreamMaker *maker, const char *bytes, size_t length) {
        char sizes[16384], entry[16500];
        size_t total = 0, written = 0;

        if (length < maker->at_once) {
                snprintf(entry, sizeof entry, "%zu", stream_lz4(maker, bytes, length));
                stream_note_sizes(maker, entry);
                return;
        }
        for (size_t at = 0; at < length; at += maker->at_once) {
                size_t part = length - at < maker->at_once ? length - at : maker->at_once;
                size_t packed = stream_lz4(maker, bytes + at, part);

                total += packed;
                written += (size_t) snprintf(sizes + written, sizeof sizes - written, "%s%zu", at ? ", " : "", packed);
                CHECK(written < sizeof sizes);
        }
        snprintf(entry, sizeof entry, "{\"%zu\": [%s]}", total, sizes);
        stream_note_sizes(maker, entry);
}

static inline void stream_data(StreamMaker *maker, uint64_t start, const void *bytes, size_t length) {
        stream_header(maker, "data", start, length);
        if (maker->compressed)
                stream_payload_lz4(maker, bytes, length);
        else
                stream_bytes(maker, bytes, length);
        stream_text(maker, "\r\n");
}

static inline void stream_end(StreamMaker *maker) {
        stream_header(maker, "stop", 0, 0);
        if (maker->compressed) {
                char text[sizeof maker->trailer + 8];

                snprintf(text, sizeof text, "%s]", maker->trailer);
                stream_text(maker, text);
                stream_text(maker, "\r\n");
                stream_header(maker, "comp", 0, strlen(text));
        }
}

static inline void stream_write(const StreamMaker *maker, int root_fd, const char *name) {
        CLEANUP(close_fd) int fd = openat(root_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

        CHECK(fd >= 0);
        CHECK_INT(write_whole(fd, maker->bytes, maker->length), 0);
}

/* Bytes that LZ4 shrinks, and that refer to what lies up to 64 KiB before. */
static inline char *stream_noise(size_t length) {
        char *bytes = malloc(length);

        CHECK(bytes);
        for (size_t at = 0; at < length;) {
                size_t run = 1 + random_below(200), back = 1 + random_below(65535);

                for (; run > 0 && at < length; run--, at++)
                        bytes[at] = at > back && back % 4 ? bytes[at - back] : (char) random_below(256);
        }
        return bytes;
}
