#include "formats/vma/unpacker.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "util/bytes.h"

#define INPUT_SIZE (512u << 10) /* bytes read at once */

struct Unpacker {
        const Packing *packing;
        void *state;
        ByteStore *packed;
        uint64_t read;         /* bytes of it that have been in the input */
        bool complete;         /* it may end here */
        size_t at, end;        /* what is left of the input */
        unsigned char input[INPUT_SIZE];
};

static const Packing *const packings[] = { &packing_zstd, &packing_gzip, &packing_lzop };

const Packing *packing_find(const unsigned char *head) {
        for (size_t i = 0; i < sizeof packings / sizeof *packings; i++)
                if (memcmp(head, packings[i]->magic, packings[i]->magic_length) == 0)
                        return packings[i];
        return NULL;
}

int unpacker_new(const Packing *packing, ByteStore *packed, Unpacker **ret, Reason *reterr) {
        CLEANUP(unpacker_freep) Unpacker *unpacker = malloc(sizeof *unpacker);
        int rc;

        if (!unpacker)
                return fail_oom(reterr);
        unpacker->packing = packing;
        unpacker->state = NULL;
        unpacker->packed = packed;
        unpacker->read = 0;
        unpacker->complete = false;
        unpacker->at = unpacker->end = 0;
        rc = packing->start(&unpacker->state, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(unpacker);
        return 0;
}

Unpacker *unpacker_free(Unpacker *unpacker) {
        if (unpacker && unpacker->state)
                unpacker->packing->free(unpacker->state);
        free(unpacker);
        return NULL;
}

static int fill_input(Unpacker *unpacker, Reason *reterr) {
        size_t kept = unpacker->end - unpacker->at;
        size_t more = (size_t) min_u64(INPUT_SIZE - kept, byte_store_size(unpacker->packed) - unpacker->read);
        int rc;

        memmove(unpacker->input, unpacker->input + unpacker->at, kept);
        rc = byte_store_read(unpacker->packed, unpacker->input + kept, more, unpacker->read, reterr);
        if (rc < 0)
                return rc;
        unpacker->read += more;
        unpacker->at = 0;
        unpacker->end = kept + more;
        return 0;
}

static bool is_at_end(const Unpacker *unpacker) {
        return unpacker->read == byte_store_size(unpacker->packed);
}

int unpacker_read(Unpacker *unpacker, void *buffer, size_t length, size_t *ret_length, Reason *reterr) {
        unsigned char *to = buffer;
        size_t done = 0;

        while (done < length) {
                size_t from_length, to_length = length - done;
                int rc;

                if (unpacker->at == unpacker->end && !is_at_end(unpacker)) {
                        rc = fill_input(unpacker, reterr);
                        if (rc < 0)
                                return rc;
                }
                from_length = unpacker->end - unpacker->at;
                if (from_length == 0 && unpacker->complete)
                        break;
                rc = unpacker->packing->unpack(unpacker->state, unpacker->input + unpacker->at, &from_length, to + done,
                                               &to_length, reterr);
                if (rc < 0)
                        return rc;
                unpacker->at += from_length;
                unpacker->complete = rc == 1;
                done += to_length;
                if (from_length > 0 || to_length > 0)
                        continue;
                /* It wants more than is left of the input. */
                if (is_at_end(unpacker) || unpacker->end - unpacker->at == INPUT_SIZE)
                        return fail(reterr, -EBADMSG, "it is cut off");
                rc = fill_input(unpacker, reterr);
                if (rc < 0)
                        return rc;
        }
        *ret_length = done;
        return 0;
}

uint64_t unpacker_position(const Unpacker *unpacker) {
        return unpacker->read - (unpacker->end - unpacker->at);
}
