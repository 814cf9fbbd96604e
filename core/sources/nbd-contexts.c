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
        const NbdContext *context; /* NULL: it was not asked for */
        size_t entry;
        uint32_t used; /* bytes of the entry */
} Walk;

static uint64_t walk_left(const Walk *walk, uint64_t otherwise) {
        return walk->context ? min_u64(walk->context->entries[walk->entry][0] - walk->used, otherwise) : otherwise;
}

static uint32_t walk_flags(const Walk *walk, uint32_t otherwise) {
        return walk->context ? walk->context->entries[walk->entry][1] : otherwise;
}

static void walk_on(Walk *walk, uint64_t length) {
        if (!walk->context)
                return;
        walk->used += (uint32_t) length;
        if (walk->used == walk->context->entries[walk->entry][0]) {
                walk->entry++;
                walk->used = 0;
        }
}

int nbd_contexts_intersect(const NbdContexts *contexts, uint64_t start, uint64_t length, SourceExtents *extents,
                           uint64_t *ret_covered) {
        Walk allocation = { .context = contexts->allocation }, dirty = { .context = contexts->dirty };
        Walk depth = { .context = contexts->depth }, *const walks[] = { &allocation, &dirty, &depth };
        uint64_t covered = length;

        for (size_t i = 0; i < sizeof walks / sizeof *walks; i++)
                if (walks[i]->context)
                        covered = min_u64(covered, walks[i]->context->covered);
        for (uint64_t at = 0, step; at < covered; at += step) {
                uint32_t state = walk_flags(&allocation, 0);

                step = walk_left(&allocation, walk_left(&dirty, walk_left(&depth, covered - at)));
                if (source_extents_add(extents, (SourceExtent) {
                                                        .start = start + at,
                                                        .length = step,
                                                        /* bit 0; others are unknown, and taken for dirty too */
                                                        .dirty = walk_flags(&dirty, 1) != 0,
                                                        .zero = (state & STATE_ZERO) && !(state & ~STATE_KNOWN),
                                                        .below = walk_flags(&depth, 0) > contexts->top_depth,
                                                }) < 0)
                        return -ENOMEM;
                for (size_t i = 0; i < sizeof walks / sizeof *walks; i++)
                        walk_on(walks[i], step);
        }
        *ret_covered = covered;
        return 0;
}
