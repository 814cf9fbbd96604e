#include "capture/plan.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "util/bytes.h"

void parent_extents_clear(ParentExtents *extents) {
        free(extents->items);
        *extents = (ParentExtents) { 0 };
}

int parent_extents_add(ParentExtents *extents, uint64_t start, uint64_t length, ParentState state) {
        ParentExtent *last = extents->count > 0 ? &extents->items[extents->count - 1] : NULL;

        if (length == 0)
                return 0;
        if (last && last->state == state && last->start + last->length == start) {
                last->length += length;
                return 0;
        }
        if (extents->count == extents->capacity) {
                size_t capacity = extents->capacity ? extents->capacity * 2 : 64;
                ParentExtent *grown = reallocarray(extents->items, capacity, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                extents->items = grown;
                extents->capacity = capacity;
        }
        extents->items[extents->count++] = (ParentExtent) { start, length, state };
        return 0;
}

void plan_clear(Plan *plan) {
        free(plan->items);
        *plan = (Plan) { 0 };
}

/* A range in which all bytes are in the same state, in the source and in the parent. */
typedef struct Piece {
        uint64_t start, length;
        bool dirty;       /* for certain */
        bool zero;        /* in the source */
        bool parent_data;
} Piece;

static bool is_zero_over_data(const Piece *piece) {
        return piece->zero && piece->parent_data;
}

/* A block of which not all pieces are there yet. */
typedef struct OpenBlock {
        uint64_t start, filled;
        bool dirty, zero;
        bool zero_over_data;  /* somewhere */
        uint64_t parent_data; /* bytes */
} OpenBlock;

static int plan_add(Plan *plan, uint64_t start, uint64_t length, bool zero) {
        PlanItem *last = plan->count > 0 ? &plan->items[plan->count - 1] : NULL;

        if (!zero)
                plan->read += length;
        if (last && last->zero == zero && last->start + last->length == start) {
                last->length += length;
                return 0;
        }
        if (plan->count == plan->capacity) {
                size_t capacity = plan->capacity ? plan->capacity * 2 : 64;
                PlanItem *grown = reallocarray(plan->items, capacity, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                plan->items = grown;
                plan->capacity = capacity;
        }
        plan->items[plan->count++] = (PlanItem) { start, length, zero };
        return 0;
}

/* Whole blocks in one state. */
static int plan_blocks(Plan *plan, uint64_t start, uint64_t length, bool dirty, bool zero, uint64_t parent_data) {
        if (dirty)
                return plan_add(plan, start, length, zero);
        plan->parent_data += parent_data;
        return 0;
}

static int plan_open_block(const OpenBlock *block, Plan *plan) {
        bool dirty = block->dirty || (block->zero && block->zero_over_data);

        return plan_blocks(plan, block->start, block->filled, dirty, block->zero, block->parent_data);
}

static int plan_piece(const PlanDisk *disk, const PlanParent *parent, Piece piece, OpenBlock *block, Plan *plan) {
        while (piece.length > 0) {
                bool begins = block->filled == 0;
                uint64_t end = piece.start + piece.length;
                uint64_t whole_end = end == disk->size ? end : round_down(end, disk->block_size);
                uint64_t take;
                int rc;

                if (begins && whole_end > piece.start) {
                        take = whole_end - piece.start;
                        rc = plan_blocks(plan, piece.start, take, piece.dirty || is_zero_over_data(&piece), piece.zero,
                                         piece.parent_data ? take : 0);
                        if (rc < 0)
                                return rc;
                } else {
                        uint64_t block_end;

                        if (begins)
                                *block = (OpenBlock) { .start = piece.start, .zero = true };
                        block_end = min_u64(block->start + disk->block_size, disk->size);
                        take = min_u64(piece.length, block_end - piece.start);
                        block->filled += take;
                        block->dirty |= piece.dirty;
                        block->zero &= piece.zero;
                        if (!block->dirty && is_zero_over_data(&piece)) {
                                block->zero_over_data = true;
                                block->dirty = !parent->is_zero(parent->context, piece.start, take);
                        }
                        block->parent_data += piece.parent_data ? take : 0;
                        if (block->start + block->filled == block_end) {
                                rc = plan_open_block(block, plan);
                                if (rc < 0)
                                        return rc;
                                block->filled = 0;
                        }
                }
                piece.start += take;
                piece.length -= take;
        }
        return 0;
}

/* Judges what both sides say of the bytes from `start` on, as far as they are in one state. */
static Piece judge(const PlanDisk *disk, uint64_t start, const SourceExtent *source, const ParentExtent *parent) {
        Piece piece = { .start = start, .length = source->start + source->length - start, .zero = source->zero };
        bool below = disk->top && source->below;

        if (start >= disk->parent_size) {
                piece.dirty = !below;
                return piece;
        }
        piece.length = min_u64(piece.length, disk->parent_size - start);
        if (parent)
                piece.length = min_u64(piece.length, parent->start + parent->length - start);
        piece.parent_data = parent && parent->state == PARENT_DATA;
        piece.dirty = disk->compared ? !source->zero : source->dirty;
        if (parent && parent->state == PARENT_LOST)
                piece.dirty = !below;
        return piece;
}

int plan_window(const PlanDisk *disk, uint64_t start, uint64_t length, const SourceExtents *source,
                const PlanParent *parent, Plan *ret) {
        const ParentExtent *held = parent ? parent->extents.items : NULL;
        OpenBlock block = { 0 };
        size_t s = 0, p = 0;
        uint64_t at = start;

        assert(start % disk->block_size == 0 && length <= disk->size - start);
        ret->count = 0;
        ret->read = 0;
        ret->parent_data = 0;
        while (at < start + length) {
                Piece piece;
                int rc;

                while (source->items[s].start + source->items[s].length <= at)
                        s++;
                assert(s < source->count && source->items[s].start <= at);
                if (parent && at < disk->parent_size) {
                        while (held[p].start + held[p].length <= at)
                                p++;
                        assert(p < parent->extents.count && held[p].start <= at);
                        piece = judge(disk, at, &source->items[s], &held[p]);
                } else
                        piece = judge(disk, at, &source->items[s], NULL);
                rc = plan_piece(disk, parent, piece, &block, ret);
                if (rc < 0)
                        return rc;
                at = piece.start + piece.length;
        }
        assert(block.filled == 0);
        return 0;
}
