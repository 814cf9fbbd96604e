#include "codec/deflate.h"

#include <errno.h>
#include <libdeflate.h>
#include <pthread.h>

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int key_error;

static void free_decompressor(void *decompressor) {
        libdeflate_free_decompressor(decompressor);
}

static void make_key(void) {
        key_error = pthread_key_create(&key, free_decompressor);
}

static struct libdeflate_decompressor *decompressor_of_thread(void) {
        struct libdeflate_decompressor *decompressor;

        (void) pthread_once(&once, make_key);
        if (key_error != 0)
                return NULL;
        decompressor = pthread_getspecific(key);
        if (!decompressor) {
                decompressor = libdeflate_alloc_decompressor();
                if (decompressor && pthread_setspecific(key, decompressor) != 0) {
                        libdeflate_free_decompressor(decompressor);
                        decompressor = NULL;
                }
        }
        return decompressor;
}

int deflate_decompress(const void *from, size_t length, void *to, size_t to_length) {
        struct libdeflate_decompressor *decompressor = decompressor_of_thread();
        size_t used;

        if (!decompressor)
                return -ENOMEM;
        if (libdeflate_deflate_decompress_ex(decompressor, from, length, to, to_length, &used, NULL) != LIBDEFLATE_SUCCESS)
                return -EBADMSG;
        return 0;
}
