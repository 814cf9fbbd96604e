#include "reader.h"

#include <errno.h>

#include "log.h"
#include "util/bytes.h"
#include "util/scratch.h"

#define ZEROES (1u << 20) /* as long as the longest request of the kernel */

static char zeroes[ZEROES] __attribute__((aligned(4096)));

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
        buffer = scratch_get(SCRATCH_ANSWER, size);
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
