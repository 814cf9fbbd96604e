#include "capture/outline.h"

#include <stdlib.h>

void outline_clear(Outline *outline) {
        for (size_t i = outline->next; i < outline->count; i++)
                source_extents_clear(&outline->windows[i].extents);
        free(outline->windows);
        *outline->room += outline->used;
        *outline = (Outline) { .room = outline->room };
}

/* No memory is no failure: what is not kept is asked again. */
void outline_keep(Outline *outline, uint64_t start, uint64_t length, SourceExtents *extents) {
        size_t size = extents->count * sizeof *extents->items + sizeof *outline->windows;
        SourceExtent *fitting;

        if (size > *outline->room)
                return;
        if (outline->count == outline->capacity) {
                size_t capacity = outline->capacity ? outline->capacity * 2 : 16;
                OutlineWindow *grown = reallocarray(outline->windows, capacity, sizeof *grown);

                if (!grown)
                        return;
                outline->windows = grown;
                outline->capacity = capacity;
        }
        fitting = reallocarray(extents->items, extents->count, sizeof *fitting);
        if (fitting) {
                extents->items = fitting;
                extents->capacity = extents->count;
        }
        outline->windows[outline->count++] = (OutlineWindow) { start, length, *extents };
        *extents = (SourceExtents) { 0 };
        *outline->room -= size;
        outline->used += size;
}

bool outline_take(Outline *outline, uint64_t start, uint64_t length, SourceExtents *ret) {
        while (outline->next < outline->count && outline->windows[outline->next].start < start)
                source_extents_clear(&outline->windows[outline->next++].extents);
        if (outline->next == outline->count || outline->windows[outline->next].start != start ||
            outline->windows[outline->next].length != length)
                return false;
        source_extents_clear(ret);
        *ret = outline->windows[outline->next++].extents;
        return true;
}
