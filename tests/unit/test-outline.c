/* What a source told of a disk is kept window by window, as far as there is room. */
#include "capture/outline.h"

#include "unit.h"

#define WINDOW 1000u

/* Every tenth byte begins another extent. */
static SourceExtents extents_of(uint64_t start, unsigned count) {
        SourceExtents extents = { 0 };

        for (unsigned i = 0; i < count; i++)
                CHECK_INT(source_extents_add(&extents, (SourceExtent) { start + 10 * i, 10, .dirty = i % 2 }), 0);
        return extents;
}

static void keep(Outline *outline, uint64_t start, unsigned count, bool kept) {
        SourceExtents extents = extents_of(start, count);

        outline_keep(outline, start, WINDOW, &extents);
        CHECK_INT(extents.count, kept ? 0 : count);
        source_extents_clear(&extents);
}

static void check_taken(Outline *outline, uint64_t start, unsigned count) {
        SourceExtents extents = extents_of(5, 3); /* what was there before goes */

        CHECK(outline_take(outline, start, WINDOW, &extents));
        CHECK_INT(extents.count, count);
        CHECK_INT(extents.items[0].start, start);
        CHECK_INT(extents.items[count - 1].dirty, (count - 1) % 2);
        source_extents_clear(&extents);
}

static void windows_are_taken_in_order(void) {
        SourceExtents extents = { 0 };
        size_t room = 1 << 20;
        Outline outline = { .room = &room };

        for (unsigned i = 0; i < 40; i++)
                keep(&outline, i * WINDOW, 1 + i, true);
        check_taken(&outline, 0, 1);
        check_taken(&outline, WINDOW, 2);
        check_taken(&outline, 5 * WINDOW, 6);
        CHECK(!outline_take(&outline, 3 * WINDOW, WINDOW, &extents));
        CHECK(!outline_take(&outline, 6 * WINDOW, WINDOW - 1, &extents));
        check_taken(&outline, 39 * WINDOW, 40);
        CHECK(!outline_take(&outline, 40 * WINDOW, WINDOW, &extents));
        outline_clear(&outline);
        CHECK_INT(room, 1 << 20);
}

static void what_there_is_no_room_for_is_not_kept(void) {
        size_t room = 3 * sizeof(SourceExtent) + 2 * sizeof(OutlineWindow), all = room;
        Outline first = { .room = &room }, second = { .room = &room };
        SourceExtents extents = { 0 };

        keep(&first, 0, 6, false);
        keep(&first, WINDOW, 2, true);
        keep(&second, 0, 2, false);
        keep(&second, WINDOW, 1, true);
        CHECK_INT(room, 0);
        CHECK(!outline_take(&first, 0, WINDOW, &extents));
        check_taken(&first, WINDOW, 2);
        outline_clear(&first);
        keep(&second, 2 * WINDOW, 2, true);
        check_taken(&second, WINDOW, 1);
        outline_clear(&second);
        CHECK_INT(room, all);
}

int main(void) {
        RUN(windows_are_taken_in_order);
        RUN(what_there_is_no_room_for_is_not_kept);
        return unit_result();
}
