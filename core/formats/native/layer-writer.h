/* core/formats/native/layer-writer.h - writes a native layer, front to back.
 *
 * Ranges are appended in ascending order and must begin at a multiple of the block size; they end at one too, or
 * at the disk's end. What is not appended is absent. Memory does not grow with the disk: index pages go out as
 * they fill. Compression is apart (packed_block_pack), so that many threads can do it while one appends.
 * Threads: a writer belongs to one thread at a time; packing may happen in any number. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "codec/codec.h"
#include "extent/extent-map.h"
#include "formats/byte-store.h"
#include "util/cleanup.h"
#include "util/reason.h"

#define NATIVE_BLOCK_SIZE_DEFAULT (64u << 10)
#define NATIVE_BLOCK_SIZE_MIN (4u << 10)
#define NATIVE_BLOCK_SIZE_MAX (2u << 20)

/* What a layer says of itself; all strings are borrowed for the call. */
typedef struct LayerDescription {
        const char *repository; /* UUIDs as text */
        const char *vm_uuid;
        const char *vm;
        const char *disk;
        const char *capture;    /* the capture that wrote it, which its point names too */
        uint64_t disk_size;     /* bytes; any, multiples of nothing */
        uint32_t block_size;    /* bytes; a power of 2 between MIN and MAX */
        const Codec *codec;
} LayerDescription;

/* A block as it is stored. */
typedef struct PackedBlock {
        const void *bytes; /* points into the raw block or the scratch given to packed_block_pack() */
        uint32_t length;   /* as stored; 0: all zeroes, nothing is stored */
        uint64_t checksum;
} PackedBlock;

/* Packs one block of raw_length bytes; scratch has room for as many. Zeroes are noticed. level 0: the codec's default. */
void packed_block_pack(const Codec *codec, int level, const void *raw, uint32_t raw_length, void *scratch, PackedBlock *ret);

typedef struct LayerTotals {
        uint64_t length;      /* bytes of the file */
        uint64_t seal;        /* what LayerLocation wants */
        uint64_t data;        /* bytes of the disk in each state */
        uint64_t zero;
        uint64_t unreadable;
        uint64_t blocks;      /* stored blocks, and what the index takes */
        uint64_t index_length;
} LayerTotals;

typedef struct LayerWriter LayerWriter;

/* Takes the sink over on success. -EINVAL for a description that does not fit. */
int layer_writer_new(ByteSink *sink, const LayerDescription *description, LayerWriter **ret, Reason *reterr);
LayerWriter *layer_writer_free(LayerWriter *writer); /* always NULL */
DEFINE_CLEANUP(LayerWriter, layer_writer_free)

/* A range of zeroes or of what could not be read; length in bytes. */
int layer_writer_add_extent(LayerWriter *writer, uint64_t start, uint64_t length, ExtentState state, Reason *reterr);
/* count neighbouring blocks from start on. */
int layer_writer_add_blocks(LayerWriter *writer, uint64_t start, const PackedBlock *blocks, size_t count, Reason *reterr);
/* Writes the rest of the index and commits the sink. Nothing can be added afterwards. */
int layer_writer_finish(LayerWriter *writer, LayerTotals *ret, Reason *reterr);
