/* core/sources/imageio-head.h - the head of an imageio server's answer: which bytes of the disk its body is, if any.
 *
 * All of it is untrusted. Threads: belongs to one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/reason.h"

typedef struct ImageioHead {
        size_t length;        /* bytes of it so far, and of answers before it to the same request */
        bool whole;           /* its last line has come */
        bool has_range, wrong_range, encoded;
        uint64_t first, last; /* bytes on the disk, both within the range */
        uint64_t total;       /* bytes there are; UINT64_MAX: it does not say */
} ImageioHead;

#define IMAGEIO_HEAD_INIT ((ImageioHead) { .total = UINT64_MAX })

/* Takes one line, without a NUL. -EPROTO: it goes on without end. */
int imageio_head_take(ImageioHead *head, const char *line, size_t length, Reason *reterr);

/* Whether the body that begins is the one that was asked for: length bytes from start on, or whatever where length is 0.
 * -EPROTO: it is not. */
int imageio_head_check(const ImageioHead *head, uint64_t start, uint64_t length, Reason *reterr);
