/* core/codec/codec.h - how a block is compressed. One line in the table of codec.c for each.
 *
 * Threads: everything here may be called from any thread; contexts are kept per thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "util/reason.h"

typedef struct Codec {
        const char *name;   /* as manifests, options and messages have it */
        uint32_t id;        /* as layers have it; never reused */
        int default_level;   /* what level means is the codec's: LZ4: acceleration, zstd: its level */
        int level_max;       /* levels are from 1 to this; 0: there are none */
        /* Compresses into at most capacity bytes: the length, or 0 where it does not fit in. */
        size_t (*compress)(const void *from, size_t length, void *to, size_t capacity, int level);
        /* 0 only where exactly to_length bytes came out; else -EBADMSG (-ENOMEM). Never writes past to_length. */
        int (*decompress)(const void *from, size_t length, void *to, size_t to_length);
        /* The first to_length bytes of what may be more, in less time than all of it takes. NULL: it cannot. */
        int (*decompress_start)(const void *from, size_t length, void *to, size_t to_length);
} Codec;

const Codec *codec_by_name(const char *name); /* "lz4", "zstd", "none"; NULL where unknown */
const Codec *codec_by_id(uint32_t id);        /* NULL where unknown */
