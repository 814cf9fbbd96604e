#include "sources/nbd-contexts.h"

#include <errno.h>
#include <string.h>

#include "util/bytes.h"

/* Of base:allocation. NBD_STATE_HOLE (1) says nothing about what is read there. */
#define STATE_ZERO 2u
#define STATE_KNOWN 3u

void nbd_context_clear(NbdContext *context) {
        free(context->entries);
        *context = (NbdContext) { 0 };
}

int nbd_context_take(NbdContext *context, const uint32_t *entries, size_t entry_words, uint64_t asked) {
        size_t count = entry_words / 2;

        if (context->covered > 0 || count == 0)
                return -EPROTO;
        if (count > context->capacity) {
                void *grown = reallocarray(context->entries, count, sizeof *context->entries);

                if (!grown)
                        return -ENOMEM;
                context->entries = grown;
                context->capacity = count;
        }
        for (size_t i = 0; i < count && context->covered < asked; i++) {
                uint32_t length = (uint32_t) min_u64(entries[2 * i], asked - context->covered);

                if (length == 0)
                        return -EPROTO;
                context->entries[context->count][0] = length;
                context->entries[context->count++][1] = entries[2 * i + 1];
                context->covered += length;
        }
        return 0;
}

/* A place in a context's answer. */
typedef struct Walk {
        const NbdContext *context;
        size_t entry;
        uint32_t used; /* bytes of the entry */
} Walk;

static uint64_t walk_left(const Walk *walk) {
        return walk->context->entries[walk->entry][0] - walk->used;
}

static uint32_t walk_flags(const Walk *walk) {
        return walk->context->entries[walk->entry][1];
}

static void walk_on(Walk *walk, uint64_t length) {
        walk->used += (uint32_t) length;
        if (walk->used == walk->context->entries[walk->entry][0]) {
                walk->entry++;
                walk->used = 0;
        }
}

int nbd_contexts_intersect(const NbdContext *allocation, const NbdContext *bitmap, uint64_t start, SourceExtents *extents,
                           uint64_t *ret_covered) {
        uint64_t covered = bitmap ? min_u64(allocation->covered, bitmap->covered) : allocation->covered;
        Walk a = { .context = allocation }, b = { .context = bitmap };

        for (uint64_t at = 0; at < covered;) {
                uint64_t length = min_u64(walk_left(&a), covered - at);
                uint32_t state = walk_flags(&a);
                bool dirty = true;

                if (bitmap) {
                        length = min_u64(length, walk_left(&b));
                        dirty = walk_flags(&b) != 0; /* bit 0; others are unknown, and taken for dirty too */
                        walk_on(&b, length);
                }
                if (source_extents_add(extents, (SourceExtent) {
                                                        .start = start + at,
                                                        .length = length,
                                                        .dirty = dirty,
                                                        .zero = (state & STATE_ZERO) && !(state & ~STATE_KNOWN),
                                                }) < 0)
                        return -ENOMEM;
                walk_on(&a, length);
                at += length;
        }
        *ret_covered = covered;
        return 0;
}
