/* core/capture/pipeline.h - copies one disk from its source into its layer.
 *
 * Each of some threads takes the next chunk of the plan, reads it and packs its blocks; chunks are appended to the layer
 * in the order in which they were taken. The plan is made window by window as it is needed. So memory is bounded by
 * threads and window, whatever the disk's size. The first error stops all. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "capture/plan.h"
#include "capture/stop.h"
#include "chain/chain.h"
#include "codec/codec.h"
#include "formats/native/layer-writer.h"
#include "sources/source.h"

#define WINDOW_SIZE (1ull << 30) /* bytes of a disk that are planned at once; a multiple of every block size */

typedef struct PipelineDisk {
        const char *name;             /* for messages */
        SourceReader *const *readers; /* at least one; threads share them as evenly as they can */
        size_t reader_count;
        PlanDisk plan;
        Chain *parent;                /* NULL: all of the disk is taken. Compared: blocks that it has too are dropped */
        const Codec *codec;
        LayerWriter *writer;
        void (*done)(void *context, uint64_t bytes); /* bytes that were read and stored; any thread */
        void *context;
} PipelineDisk;

/* How many threads, and readers where the source allows, are worth having. */
size_t pipeline_thread_count(void);

/* ret_parent_data: bytes that stay the parent's and are data there. On failure the cause that stop knows is told. */
int pipeline_run(const PipelineDisk *disk, Stop *stop, uint64_t *ret_parent_data, Reason *reterr);
