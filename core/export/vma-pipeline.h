/* core/export/vma-pipeline.h - reads disks side by side and writes the extents of a VMA archive in order.
 *
 * Memory: as many extents as there are threads, and two. Threads: belongs to one, which writes; others read. */
#pragma once

#include "chain/chain.h"
#include "export/export.h"
#include "export/output.h"

/* A device: a disk, or a kept file that is one. */
typedef struct VmaSource {
        const char *name; /* for people */
        uint64_t size;    /* bytes */
        Chain *chain;     /* either */
        Layer *layer;     /* or, without holes */
} VmaSource;

/* sources: those of devices 1, 2, … in this order. uuid: the archive's. */
int vma_pipeline_run(const VmaSource *sources, size_t count, const unsigned char *uuid, Output *output,
                     const ExportOptions *options, Reason *reterr);
