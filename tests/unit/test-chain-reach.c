/* Which points show what one of them holds, in random histories of disks that grow and shrink. */
#include "chain-model.h"
#include "chain/reach.h"

#define POINTS 14u
#define SIZE_MAX_BYTES 300000u

/* Makes the points; the parent of each is any before it. */
static void make_history(Fixture *f, PointModel *points) {
        for (unsigned i = 0; i < POINTS; i++) {
                bool full = i == 0 || random_below(6) == 0;
                const PointModel *parent = full ? NULL : &points[random_below(i)];
                uint64_t size = parent && random_below(3) ? parent->size : 1 + random_below(SIZE_MAX_BYTES);
                LayerModel layer = layer_model_new(size, 4096, "none");

                layer_model_fill(&layer, full ? 0 : 7);
                layer_model_note_zeroes(&layer);
                points[i] = point_model_new(i, size, parent);
                point_model_apply(&points[i], &layer, i);
                write_point(f, points[i].name, parent ? parent->name : NULL, i + 1, full ? POINT_FULL : POINT_INCREMENTAL,
                            size, &layer, 1);
                layer_model_clear(&layer);
        }
}

static void check_reach(Fixture *f, const PointModel *points, unsigned owner, uint64_t offset) {
        CLEANUP(strings_free) Strings reached = { 0 };
        Reason reason = REASON_INIT;
        size_t found = 0;
        bool more;

        CHECK_INT(reach_find(f->vm, points[owner].name, "vda", offset, 60000, &reached, &more, &reason), 0);
        CHECK(!more);
        for (unsigned i = 0; i < POINTS; i++) {
                if (offset >= points[i].size || points[i].points[offset] != owner)
                        continue;
                CHECK(found < reached.count);
                CHECK_TEXT(reached.items[found], points[i].name);
                found++;
        }
        CHECK_INT(found, reached.count);
}

static void what_a_layer_holds_is_shown_until_another_covers_it(void) {
        for (unsigned round = 0; round < 5; round++) {
                Fixture f = fixture_with_cache(REPOSITORY_CACHE_DEFAULT);
                PointModel points[POINTS];

                make_history(&f, points);
                for (unsigned i = 0; i < 150; i++) {
                        unsigned at = (unsigned) random_below(POINTS);
                        uint64_t offset = random_below(points[at].size);

                        if (points[at].points[offset] != NOBODY)
                                check_reach(&f, points, points[at].points[offset], offset);
                }
                for (unsigned i = 0; i < POINTS; i++)
                        point_model_clear(&points[i]);
                fixture_clear(&f);
        }
}

static void looking_ends_in_time(void) {
        CLEANUP(strings_free) Strings reached = { 0 };
        Fixture f = fixture_with_cache(REPOSITORY_CACHE_DEFAULT);
        PointModel points[POINTS];
        Reason reason = REASON_INIT;
        struct timespec moment = { .tv_nsec = 2000000 };
        bool more = false;

        make_history(&f, points);
        for (unsigned i = 0; i < 1000 && !more; i++) { /* sooner or later a millisecond passes within it */
                strings_free(&reached);
                CHECK_INT(reach_find(f.vm, points[0].name, "vda", 0, 0, &reached, &more, &reason), 0);
                nanosleep(&moment, NULL);
        }
        CHECK(more);
        CHECK_TEXT(reached.items[0], points[0].name);
        for (unsigned i = 0; i < POINTS; i++)
                point_model_clear(&points[i]);
        fixture_clear(&f);
}

int main(void) {
        RUN(what_a_layer_holds_is_shown_until_another_covers_it);
        RUN(looking_ends_in_time);
        return unit_result();
}
