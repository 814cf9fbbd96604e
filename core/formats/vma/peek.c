#include "formats/vma/peek.h"

#include <errno.h>
#include <string.h>

#include "util/bytes.h"

/* Reads from either. */
typedef struct Beginning {
        ByteStore *file;
        Unpacker *unpacker; /* NULL: it is not packed */
        uint64_t at;
} Beginning;

static int read_next(Beginning *beginning, void *buffer, size_t length, Reason *reterr) {
        size_t got = length;
        int rc;

        if (beginning->unpacker)
                rc = unpacker_read(beginning->unpacker, buffer, length, &got, reterr);
        else {
                got = (size_t) min_u64(length, byte_store_size(beginning->file) - beginning->at);
                rc = byte_store_read(beginning->file, buffer, got, beginning->at, reterr);
                beginning->at += got;
        }
        if (rc == 0 && got < length)
                rc = fail(reterr, -EBADMSG, "it is cut off within its header");
        return rc;
}

int vma_peek(ByteStore *file, const Packing **ret_packing, VmaHeader **ret, Reason *reterr) {
        CLEANUP(unpacker_freep) Unpacker *unpacker = NULL;
        CLEANUP(freep) unsigned char *bytes = malloc(VMA_HEADER_SIZE);
        unsigned char head[PACKING_HEAD], *grown;
        const Packing *packing;
        Beginning beginning;
        uint32_t length;
        int rc;

        if (!bytes)
                return fail_oom(reterr);
        if (byte_store_size(file) < sizeof head)
                return fail(reterr, -EBADMSG, "it is too short");
        rc = byte_store_read(file, head, sizeof head, 0, reterr);
        if (rc < 0)
                return rc;
        packing = packing_find(head);
        if (packing)
                rc = unpacker_new(packing, file, &unpacker, reterr);
        beginning = (Beginning) { file, unpacker, 0 };
        if (rc == 0)
                rc = read_next(&beginning, bytes, VMA_HEADER_SIZE, reterr);
        if (rc == 0)
                rc = vma_header_length(bytes, &length, reterr);
        if (rc < 0)
                return rc;
        grown = realloc(bytes, length);
        if (!grown)
                return fail_oom(reterr);
        bytes = grown;
        rc = read_next(&beginning, bytes + VMA_HEADER_SIZE, length - VMA_HEADER_SIZE, reterr);
        if (rc == 0)
                rc = vma_header_load(bytes, ret, reterr);
        if (rc < 0)
                return rc;
        (void) STEAL_PTR(bytes);
        *ret_packing = packing;
        return 0;
}
