/* core/formats/vma/unpacker.h - unpacks what zstd, gzip or lzop have packed, from front to back.
 *
 * Several packed files behind each other are one, as for the tools themselves. Their checksums are checked.
 * Threads: an unpacker belongs to one thread at a time. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "formats/byte-store.h"
#include "util/cleanup.h"
#include "util/reason.h"

typedef struct Unpacker Unpacker;

typedef struct Packing {
        const char *name; /* of the tool */
        const char *ending; /* that files have, ".zst" */
        unsigned char magic[10];
        size_t magic_length;
        /* Makes *state, which unpack() and free() get. */
        int (*start)(void **ret_state, Reason *reterr);
        /* Unpacks up to *to_length bytes from up to *from_length; both become what was done of it. With at_end there is
         * nothing behind these. 1: all that has been begun is unpacked: the input may end here; 0: it goes on. -EBADMSG:
         * damaged. */
        int (*unpack)(void *state, const void *from, size_t *from_length, void *to, size_t *to_length, Reason *reterr);
        void (*free)(void *state);
} Packing;

#define PACKING_HEAD 16 /* bytes of a file that tell how it is packed */

/* head: the first PACKING_HEAD bytes of a file. NULL: it is not packed, or unknown. */
const Packing *packing_find(const unsigned char *head);

/* Borrows the store. */
int unpacker_new(const Packing *packing, ByteStore *packed, Unpacker **ret, Reason *reterr);
Unpacker *unpacker_free(Unpacker *unpacker); /* always NULL */
DEFINE_CLEANUP(Unpacker, unpacker_free)

/* The next bytes: *ret_length is less than length at the end only. -EBADMSG with the reason: damaged, or cut off. */
int unpacker_read(Unpacker *unpacker, void *buffer, size_t length, size_t *ret_length, Reason *reterr);

uint64_t unpacker_position(const Unpacker *unpacker); /* bytes of the packed store that have been used */

extern const Packing packing_zstd, packing_gzip, packing_lzop;
