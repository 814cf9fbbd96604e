/* core/formats/virtnbdbackup/lz4-header.h - the header of an LZ4 frame, and how long a frame is.
 *
 * The format is https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md. Only what tells blocks apart is read here:
 * liblz4 can neither begin in the middle of a frame nor tell where its blocks lie. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "formats/virtnbdbackup/window.h"

#define LZ4_WINDOW (64u << 10)               /* bytes before a block that it can refer to */
#define LZ4_CONTENT_MAX (1u << 30)           /* bytes that a frame may hold: the tool packs 32 MiB at once */
#define LZ4_BLOCK_STORED (UINT32_C(1) << 31) /* in a block's size: it is not compressed */

typedef struct Lz4Header {
        uint64_t content;       /* bytes that the frame holds, unpacked: 1 … LZ4_CONTENT_MAX */
        uint32_t block_size;    /* bytes of each block but the last, unpacked */
        uint32_t header_length; /* bytes */
        bool linked;            /* blocks refer to what is before them */
        bool has_block_checksums;
        bool has_content_checksum;
} Lz4Header;

/* The frame at offset, all of whose bytes lie before limit. -EBADMSG where there is none, or it does not tell how much it
 * holds; -ENOTSUP for what the tool never writes; -EIO. */
int lz4_header_read(ByteStore *bytes, Window *window, uint64_t offset, uint64_t limit, Lz4Header *ret, Reason *reterr);

/* Bytes of the whole frame, found by going from block to block. -EBADMSG where it passes limit. */
int lz4_frame_measure(ByteStore *bytes, Window *window, uint64_t offset, uint64_t limit, const Lz4Header *header,
                      uint64_t *ret, Reason *reterr);
