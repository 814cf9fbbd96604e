/* core/sources/image-info.h - what qemu-img says of an image file. Formats are never guessed. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "util/reason.h"

typedef struct ImageBitmap {
        char *name;
        bool consistent; /* QEMU ended in good order */
        bool recording;  /* what is written is marked in it */
} ImageBitmap;

/* One image of a chain. */
typedef struct ImageInfo {
        char *path;
        char *format;
        ImageBitmap *bitmaps;
        size_t bitmap_count;
} ImageInfo;

typedef struct ImageChain {
        ImageInfo *images; /* the top one first */
        size_t count;
} ImageChain;
void image_chain_clear(ImageChain *chain);

/* The image and its backing files, all of them files or block devices. An image that does not tell the format of its backing
 * file is refused, -EINVAL: what a guest once wrote into a raw one must not be taken for a header. Also while a VM has them
 * open. cancel may be NULL. */
int image_chain_read(const char *path, const char *format, const atomic_bool *cancel, ImageChain *ret, Reason *reterr);

const ImageBitmap *image_find_bitmap(const ImageInfo *image, const char *name);
