#include "reader.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "log.h"
#include "util/bytes.h"

#define PAGE 4096u
#define ZEROES (1u << 20) /* as long as the longest request of the kernel */

typedef struct Buffer {
        size_t size;
        void *memory;
} Buffer;

static char zeroes[ZEROES] __attribute__((aligned(PAGE)));

static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;

static void free_buffer(void *value) {
        Buffer *buffer = value;

        free(buffer->memory);
        free(buffer);
}

static void make_key(void) {
        if (pthread_key_create(&buffer_key, free_buffer) != 0)
                abort();
}

void *reader_buffer(size_t size) {
        Buffer *buffer;

        pthread_once(&buffer_once, make_key);
        buffer = pthread_getspecific(buffer_key);
        if (!buffer) {
                buffer = calloc(1, sizeof *buffer);
                if (!buffer)
                        return NULL;
                if (pthread_setspecific(buffer_key, buffer) != 0) {
                        free(buffer);
                        return NULL;
                }
        }
        if (buffer->size < size) {
                size_t rounded = round_up(size, PAGE);

                free(buffer->memory);
                buffer->size = 0;
                buffer->memory = aligned_alloc(PAGE, rounded);
                if (!buffer->memory)
                        return NULL;
                buffer->size = rounded;
        }
        return buffer->memory;
}

int reader_read(Chain *chain, const Item *item, size_t size, uint64_t offset, const void **ret_bytes, size_t *ret_length) {
        Reason reason = REASON_INIT;
        char subject[SUBJECT_MAX];
        void *buffer;
        int rc;

        if (offset >= chain_size(chain)) {
                *ret_length = 0;
                return 0;
        }
        size = (size_t) min_u64(size, chain_size(chain) - offset);
        if (size <= sizeof zeroes && chain_is_zero(chain, offset, size) == 1) {
                *ret_bytes = zeroes;
                *ret_length = size;
                return 0;
        }
        buffer = reader_buffer(size);
        if (!buffer)
                return -ENOMEM;
        rc = chain_read(chain, buffer, size, offset, &reason);
        if (rc < 0) {
                item_subject(item, subject);
                log_once(node_number(item->node), "%s: %s", subject, reason.text);
                return rc;
        }
        *ret_bytes = buffer;
        *ret_length = size;
        return 0;
}
