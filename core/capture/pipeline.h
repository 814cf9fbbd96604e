/* core/capture/pipeline.h - copies one disk from its source into its layer.
 *
 * Threads take the next chunk of what there is to do, read it, and pack its blocks; the caller's thread appends the chunks
 * to the layer in the order of the disk. What has been read and is not yet written lies in a fixed number of slots, so that
 * memory is bounded whatever the disk's size. The first error stops all. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "capture/outline.h"
#include "capture/plan.h"
#include "capture/readers.h"
#include "capture/stop.h"
#include "chain/chain.h"
#include "codec/codec.h"
#include "formats/native/layer-writer.h"

#define PIPELINE_MEMORY_DEFAULT (64u << 20) /* bytes */

typedef struct PipelineDisk {
        const char *name;  /* for messages */
        Readers *readers;
        Outline *outline;  /* of the disk; NULL: the source is asked */
        PlanDisk plan;
        Chain *parent;     /* NULL: all of the disk is taken. Compared: blocks that it has too are dropped */
        const Codec *codec;
        int codec_level;
        size_t memory;     /* bytes of the slots, at most, as far as two will do */
        LayerWriter *writer;
        void (*done)(void *context, uint64_t bytes); /* bytes that were read and stored */
        /* A range that could not be read was recorded as unreadable, for this reason. In the order of the disk. */
        void (*skipped)(void *context, uint64_t start, uint64_t length, const Reason *why);
        void *context;     /* both are called from the caller's thread */
} PipelineDisk;

/* ret_parent_data: bytes that stay the parent's and are data there. On failure the cause that stop knows is told. */
int pipeline_run(const PipelineDisk *disk, Stop *stop, uint64_t *ret_parent_data, Reason *reterr);
