/* core/capture/plan.h - what a capture does with each block of a disk: read it, store it as zeroes, or leave it to the
 * parent. Pure: from what the source says and what the parent's map says, to the layer's ranges.
 *
 * A clean bitmap does not prove that nothing changed. A range is dirty where
 *   - the source says so, or all of the disk is taken;
 *   - it lies past the parent's end: grown parts are clean in the bitmap;
 *   - the source says zero and the parent has data: shrunk and grown again, clean and different. The parent's map tells
 *     whole blocks only: where the source says zero for a part of one, the parent's bytes decide;
 *   - the parent lost it and could not deliver it;
 *   - nobody tells what changed, and the source does not say zero: such a block is read, and stored where it differs from
 *     the parent's.
 * A block with a dirty byte is taken whole, since the source shows the whole disk at that moment: as zeroes where the
 * source says zero for all of it, else by reading it. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sources/source.h"
#include "util/reason.h"

typedef enum ParentState {
        PARENT_DATA,
        PARENT_ZERO,
        PARENT_LOST, /* unreadable, damaged, or in no layer */
} ParentState;

/* What the parent point has in a range. */
typedef struct ParentExtent {
        uint64_t start, length; /* bytes */
        ParentState state;
} ParentExtent;

typedef struct ParentExtents {
        ParentExtent *items;
        size_t count, capacity;
} ParentExtents;
void parent_extents_clear(ParentExtents *extents);
int parent_extents_add(ParentExtents *extents, uint64_t start, uint64_t length, ParentState state);

typedef struct PlanParent {
        ParentExtents extents;
        bool (*is_zero)(void *context, uint64_t start, uint64_t length); /* reads the parent's bytes: at most a block */
        void *context;
} PlanParent;

typedef struct PlanDisk {
        uint64_t size;        /* bytes, of the source */
        uint64_t parent_size; /* bytes; 0 where all of the disk is taken */
        uint32_t block_size;  /* bytes, of the layer; a power of 2 */
        bool compared;        /* the source cannot tell what changed: what it calls dirty means nothing */
        bool top;             /* what is below the top image is left out, unless the parent has another state of it */
} PlanDisk;

/* A run of whole blocks (the disk's last one may be short) that the layer gets. What is in no item is absent. */
typedef struct PlanItem {
        uint64_t start, length; /* bytes */
        bool zero;              /* store as zeroes, else read */
} PlanItem;

typedef struct Plan {
        PlanItem *items;
        size_t count, capacity;
        uint64_t read;        /* bytes of the items to read */
        uint64_t parent_data; /* bytes that stay the parent's and are data there */
} Plan;
void plan_clear(Plan *plan);

/* Plans [start, start + length): start is a multiple of the block size, and the end is one too or the disk's end.
 * source: without gaps, exactly that range. parent: its extents without gaps, that range up to the parent's size; NULL: not
 * asked, what is clean counts as the parent's zeroes. *ret is cleared first, its memory used again. -ENOMEM. */
int plan_window(const PlanDisk *disk, uint64_t start, uint64_t length, const SourceExtents *source,
                const PlanParent *parent, Plan *ret);
