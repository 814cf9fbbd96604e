#include "codec/codec.h"

#include <errno.h>
#include <limits.h>
#include <lz4.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

static size_t compress_none(const void *from, size_t length, void *to, size_t capacity, int level) {
        if (length > capacity)
                return 0;
        memcpy(to, from, length);
        return length;
}

static int decompress_none(const void *from, size_t length, void *to, size_t to_length) {
        if (length != to_length)
                return -EBADMSG;
        memcpy(to, from, length);
        return 0;
}

static size_t compress_lz4(const void *from, size_t length, void *to, size_t capacity, int level) {
        int n;

        if (length > LZ4_MAX_INPUT_SIZE)
                return 0;
        n = LZ4_compress_fast(from, to, (int) length, capacity > INT_MAX ? INT_MAX : (int) capacity, level);
        return n > 0 ? (size_t) n : 0;
}

static int decompress_lz4(const void *from, size_t length, void *to, size_t to_length) {
        if (length > INT_MAX || to_length > INT_MAX)
                return -EBADMSG;
        return LZ4_decompress_safe(from, to, (int) length, (int) to_length) == (int) to_length ? 0 : -EBADMSG;
}

static int decompress_start_lz4(const void *from, size_t length, void *to, size_t to_length) {
        if (length > INT_MAX || to_length > INT_MAX)
                return -EBADMSG;
        if (LZ4_decompress_safe_partial(from, to, (int) length, (int) to_length, (int) to_length) != (int) to_length)
                return -EBADMSG;
        return 0;
}

/* zstd's contexts are large: each thread keeps one of both kinds. */
typedef struct ZstdContexts {
        ZSTD_CCtx *compression;
        ZSTD_DCtx *decompression;
} ZstdContexts;

static pthread_key_t zstd_key;
static pthread_once_t zstd_once = PTHREAD_ONCE_INIT;

static void zstd_contexts_free(void *p) {
        ZstdContexts *contexts = p;

        ZSTD_freeCCtx(contexts->compression);
        ZSTD_freeDCtx(contexts->decompression);
        free(contexts);
}

static void zstd_key_make(void) {
        (void) pthread_key_create(&zstd_key, zstd_contexts_free);
}

static ZstdContexts *zstd_contexts(void) {
        ZstdContexts *contexts;

        (void) pthread_once(&zstd_once, zstd_key_make);
        contexts = pthread_getspecific(zstd_key);
        if (!contexts) {
                contexts = calloc(1, sizeof *contexts);
                if (contexts && pthread_setspecific(zstd_key, contexts) != 0) {
                        free(contexts);
                        contexts = NULL;
                }
        }
        return contexts;
}

static size_t compress_zstd(const void *from, size_t length, void *to, size_t capacity, int level) {
        ZstdContexts *contexts = zstd_contexts();
        size_t n;

        if (contexts && !contexts->compression)
                contexts->compression = ZSTD_createCCtx();
        if (!contexts || !contexts->compression)
                return 0;
        n = ZSTD_compressCCtx(contexts->compression, to, capacity, from, length, level);
        return ZSTD_isError(n) ? 0 : n;
}

static int decompress_zstd(const void *from, size_t length, void *to, size_t to_length) {
        ZstdContexts *contexts = zstd_contexts();
        size_t n;

        if (contexts && !contexts->decompression)
                contexts->decompression = ZSTD_createDCtx();
        if (!contexts || !contexts->decompression)
                return -ENOMEM;
        n = ZSTD_decompressDCtx(contexts->decompression, to, to_length, from, length);
        return !ZSTD_isError(n) && n == to_length ? 0 : -EBADMSG;
}

static const Codec codecs[] = {
        { .name = "none", .id = 0, .compress = compress_none, .decompress = decompress_none },
        { .name = "lz4", .id = 1, .default_level = 1, .level_max = 65537, .compress = compress_lz4,
          .decompress = decompress_lz4, .decompress_start = decompress_start_lz4 },
        { .name = "zstd", .id = 2, .default_level = 1, .level_max = 22, .compress = compress_zstd,
          .decompress = decompress_zstd },
};

const Codec *codec_by_name(const char *name) {
        for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++)
                if (strcmp(codecs[i].name, name) == 0)
                        return &codecs[i];
        return NULL;
}

const Codec *codec_by_id(uint32_t id) {
        for (size_t i = 0; i < sizeof codecs / sizeof *codecs; i++)
                if (codecs[i].id == id)
                        return &codecs[i];
        return NULL;
}
