/* core/formats/native/layer-private.h - what the files that read native layers share.
 *
 * layer-reader.c  the layer as others see it: its extents, and reading a range
 * layer-open.c    header and footer
 * layer-index.c   which page tells of a block
 * layer-blocks.c  stored blocks, fetched, checked and decompressed */
#pragma once

#include "codec/codec.h"
#include "formats/layer.h"
#include "formats/native/page.h"

typedef struct NativeLayer {
        Layer layer;
        ByteStore *store;
        Cache *memory;
        uint64_t owner; /* of what is in memory */
        const Codec *codec;
        PageBounds bounds;
        PageEntry root;
} NativeLayer;

extern const LayerOps native_layer_ops;

/* The leaf that tells of the first block in [block, end) that any leaf tells of; *ret_leaf NULL where there is none.
 * ret_entry: what the tree says of that leaf; on failure of the page that could not be had. */
int native_find_leaf(const NativeLayer *native, uint64_t block, uint64_t end, CacheEntry **ret_leaf, PageEntry *ret_entry,
                     Reason *reterr);

/* Takes the root into the cache, out of the file's end, which is from tail_start on. Where it is damaged, whoever needs
 * it will be told. */
void native_keep_root(const NativeLayer *native, const unsigned char *tail, uint64_t tail_start);

/* [start, end) of the disk, which lies within a data record of the leaf. */
int native_read_record(const NativeLayer *native, const Page *leaf, const PageRecord *record, uint64_t start, uint64_t end,
                       unsigned char *to, Reason *reterr);
