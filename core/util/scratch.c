#include "util/scratch.h"

#include <pthread.h>
#include <stdlib.h>

#include "util/bytes.h"

#define ALIGNMENT 4096u

typedef struct Scratch {
        struct {
                void *buffer;
                size_t length;
        } uses[SCRATCH_USES];
} Scratch;

static pthread_key_t scratch_key;
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static int scratch_key_error;

static void scratch_free(void *p) {
        Scratch *scratch = p;

        for (size_t i = 0; i < SCRATCH_USES; i++)
                free(scratch->uses[i].buffer);
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

void *scratch_get(ScratchUse use, size_t length) {
        Scratch *scratch = scratch_of_thread();

        if (!scratch)
                return NULL;
        if (scratch->uses[use].length < length) {
                size_t rounded = round_up(length, ALIGNMENT);

                free(scratch->uses[use].buffer);
                scratch->uses[use].buffer = aligned_alloc(ALIGNMENT, rounded);
                scratch->uses[use].length = scratch->uses[use].buffer ? rounded : 0;
        }
        return scratch->uses[use].buffer;
}
