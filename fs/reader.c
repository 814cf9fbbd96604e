#include "reader.h"

#include <errno.h>

#include "log.h"
#include "util/bytes.h"
#include "util/patience.h"
#include "util/scratch.h"

#define ZEROES (1u << 20) /* as long as the longest request of the kernel */
#define SHORT (16u << 10) /* bytes, that are zeroed sooner than it is found out that they are a hole */
#define PIECE (4u << 10)  /* what is tried by itself where not all can be read: the smallest block */

static char zeroes[ZEROES] __attribute__((aligned(4096)));

/* How much can be read from the beginning of a range of which not all can. */
static size_t readable_start(const ChainView *view, unsigned char *buffer, size_t size, uint64_t offset) {
        uint64_t end = offset + size, at = offset;

        while (at < end) {
                uint64_t next = min_u64(round_down(at, PIECE) + PIECE, end);

                if (chain_view_read(view, buffer + (at - offset), next - at, at, NULL) < 0)
                        break;
                at = next;
        }
        return (size_t) (at - offset);
}

int reader_read(OpenFile *file, size_t size, uint64_t offset, Answer *ret) {
        Reason reason = REASON_INIT;
        char subject[SUBJECT_MAX];
        void *buffer;
        int rc;

        if (offset >= chain_view_size(file->view))
                return 0;
        size = (size_t) min_u64(size, chain_view_size(file->view) - offset);
        if (file->prefetch && size > 0)
                ret->range = prefetch_read(file->prefetch, offset, size, &ret->bytes);
        ret->length = size;
        ret->end = offset + size;
        if (ret->range)
                return 0;
        if (size > SHORT && size <= sizeof zeroes && chain_view_is_zero(file->view, offset, size) == 1) {
                ret->bytes = zeroes;
                return 0;
        }
        buffer = scratch_get(SCRATCH_ANSWER, size);
        if (!buffer)
                return -ENOMEM;
        rc = chain_view_read(file->view, buffer, size, offset, &reason);
        if (rc < 0) {
                item_subject(&file->item, subject);
                if (!patience_is_over())
                        log_once(node_number(file->item.node), "%s: %s", subject, reason.text);
                ret->length = file->direct ? readable_start(file->view, buffer, size, offset) : 0;
        }
        ret->bytes = buffer;
        return ret->length > 0 ? 0 : rc;
}

void reader_release(Answer *answer) {
        if (answer->range)
                prefetch_release(answer->range, answer->end);
        answer->range = NULL;
}
