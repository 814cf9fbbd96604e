#include "util/scratch.h"

#include <pthread.h>
#include <stdlib.h>

#include "util/bytes.h"

#define ALIGNMENT 4096u

typedef struct Scratch {
        void *buffer;
        size_t length;
} Scratch;

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static int scratch_key_error;

static void scratch_free(void *p) {
        Scratch *scratch = p;

        free(scratch->buffer);
        free(scratch);
}

static void scratch_key_make(void) {
        scratch_key_error = pthread_key_create(&scratch_key, scratch_free);
}

static Scratch *scratch_of_thread(void) {
        Scratch *scratch;

        (void) pthread_once(&scratch_once, scratch_key_make);
        if (scratch_key_error != 0)
                return NULL;
        scratch = pthread_getspecific(scratch_key);
        if (!scratch) {
                scratch = calloc(1, sizeof *scratch);
                if (scratch && pthread_setspecific(scratch_key, scratch) != 0) {
                        free(scratch);
                        scratch = NULL;
                }
        }
        return scratch;
}

void *scratch_get(size_t length) {
        Scratch *scratch = scratch_of_thread();

        if (!scratch)
                return NULL;
        if (scratch->length < length) {
                free(scratch->buffer);
                scratch->length = round_up(length, ALIGNMENT);
                scratch->buffer = aligned_alloc(ALIGNMENT, scratch->length);
                if (!scratch->buffer)
                        scratch->length = 0;
        }
        return scratch->buffer;
}
