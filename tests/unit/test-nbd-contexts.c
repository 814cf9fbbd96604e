#include "sources/nbd-contexts.h"

#include <errno.h>

#include "unit.h"

#define PAIRS(array) (array), sizeof (array) / sizeof *(array)
#define MIB (1u << 20)

static int intersect(const NbdContext *allocation, const NbdContext *dirty, uint64_t start, SourceExtents *extents,
                     uint64_t *ret_covered) {
        const NbdContexts contexts = { .allocation = allocation, .dirty = dirty };

        return nbd_contexts_intersect(&contexts, start, UINT64_MAX, extents, ret_covered);
}

static void contexts_of_other_lengths_are_intersected(void) {
        const uint32_t allocation[] = { 10, 0, 20, 3, 70, 2 }, dirty[] = { 15, 1, 85, 0 };
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(nbd_context_clear) NbdContext a = { 0 };
        CLEANUP(nbd_context_clear) NbdContext b = { 0 };
        uint64_t covered;

        CHECK_INT(nbd_context_take(&a, PAIRS(allocation), 100), 0);
        CHECK_INT(nbd_context_take(&b, PAIRS(dirty), 100), 0);
        CHECK_INT(intersect(&a, &b, 1000, &e, &covered), 0);
        CHECK_INT(covered, 100);
        CHECK_INT(e.count, 3);
        CHECK(e.items[0].start == 1000 && e.items[0].length == 10 && e.items[0].dirty && !e.items[0].zero);
        CHECK(e.items[1].start == 1010 && e.items[1].length == 5 && e.items[1].dirty && e.items[1].zero);
        CHECK(e.items[2].start == 1015 && e.items[2].length == 85 && !e.items[2].dirty && e.items[2].zero);
}

static void shorter_answer_limits_what_is_covered(void) {
        const uint32_t allocation[] = { 10, 0, 20, 3 }, dirty[] = { 7, 1 };
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(nbd_context_clear) NbdContext a = { 0 };
        CLEANUP(nbd_context_clear) NbdContext b = { 0 };
        uint64_t covered;

        CHECK_INT(nbd_context_take(&a, PAIRS(allocation), 100), 0);
        CHECK_INT(nbd_context_take(&b, PAIRS(dirty), 100), 0);
        CHECK_INT(intersect(&a, &b, 0, &e, &covered), 0);
        CHECK_INT(covered, 7);
        CHECK_INT(e.count, 1);
        CHECK_INT(e.items[0].length, 7);
}

static void missing_answer_covers_nothing(void) {
        const uint32_t allocation[] = { 10, 0 };
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(nbd_context_clear) NbdContext a = { 0 };
        CLEANUP(nbd_context_clear) NbdContext b = { 0 };
        uint64_t covered;

        CHECK_INT(nbd_context_take(&a, PAIRS(allocation), 100), 0);
        CHECK_INT(intersect(&a, &b, 0, &e, &covered), 0);
        CHECK_INT(covered, 0);
        CHECK_INT(e.count, 0);
}

static void lengths_past_the_range_are_cut(void) {
        const uint32_t lying[] = { 90, 2, UINT32_MAX, 0, UINT32_MAX, 2 };
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(nbd_context_clear) NbdContext a = { 0 };
        uint64_t covered;

        CHECK_INT(nbd_context_take(&a, PAIRS(lying), 100), 0);
        CHECK_INT(a.covered, 100);
        CHECK_INT(intersect(&a, NULL, 0, &e, &covered), 0);
        CHECK_INT(covered, 100);
        CHECK_INT(e.count, 2);
        CHECK_INT(e.items[1].length, 10);
}

static void only_the_zero_flag_means_zeroes(void) {
        /* data, hole, zero, hole and zero, unknown bit, zero with an unknown bit */
        const uint32_t flags[] = { 8, 0, 8, 1, 8, 2, 8, 3, 8, 4, 8, 6 };
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(nbd_context_clear) NbdContext a = { 0 };
        uint64_t covered;

        CHECK_INT(nbd_context_take(&a, PAIRS(flags), 48), 0);
        CHECK_INT(intersect(&a, NULL, 0, &e, &covered), 0);
        CHECK_INT(e.count, 3);
        CHECK(!e.items[0].zero && e.items[0].length == 16);
        CHECK(e.items[1].zero && e.items[1].length == 16);
        CHECK(!e.items[2].zero && e.items[2].length == 16);
        CHECK(e.items[0].dirty && e.items[1].dirty && e.items[2].dirty);
}

static void unknown_bits_of_a_bitmap_are_dirty(void) {
        const uint32_t allocation[] = { 30, 0 }, dirty[] = { 10, 0, 10, 2, 10, 0 };
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(nbd_context_clear) NbdContext a = { 0 };
        CLEANUP(nbd_context_clear) NbdContext b = { 0 };
        uint64_t covered;

        CHECK_INT(nbd_context_take(&a, PAIRS(allocation), 30), 0);
        CHECK_INT(nbd_context_take(&b, PAIRS(dirty), 30), 0);
        CHECK_INT(intersect(&a, &b, 0, &e, &covered), 0);
        CHECK_INT(e.count, 3);
        CHECK(!e.items[0].dirty && e.items[1].dirty && !e.items[2].dirty);
}

static void entry_without_length_is_refused(void) {
        const uint32_t entries[] = { 10, 0, 0, 0, 10, 0 };
        CLEANUP(nbd_context_clear) NbdContext a = { 0 };

        CHECK_INT(nbd_context_take(&a, PAIRS(entries), 100), -EPROTO);
}

static void no_entries_and_a_second_answer_are_refused(void) {
        const uint32_t entries[] = { 10, 0 };
        CLEANUP(nbd_context_clear) NbdContext a = { 0 };

        CHECK_INT(nbd_context_take(&a, entries, 0, 100), -EPROTO);
        CHECK_INT(nbd_context_take(&a, PAIRS(entries), 100), 0);
        CHECK_INT(nbd_context_take(&a, PAIRS(entries), 100), -EPROTO);
}

static void neighbours_over_several_answers_become_one(void) {
        const uint32_t entries[] = { MIB, 0 };
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };

        for (uint64_t at = 0; at < 300 * (uint64_t) MIB; at += MIB) {
                CLEANUP(nbd_context_clear) NbdContext a = { 0 };
                uint64_t covered;

                CHECK_INT(nbd_context_take(&a, PAIRS(entries), MIB), 0);
                CHECK_INT(intersect(&a, NULL, at, &e, &covered), 0);
        }
        CHECK_INT(e.count, 1);
        CHECK_INT(e.items[0].length, 300 * (uint64_t) MIB);
}

static void what_lies_deeper_than_the_top_is_below(void) {
        const uint32_t depths[] = { 10, 0, 10, 1, 10, 2, 10, 3 }, dirty[] = { 35, 1, 5, 0 };
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        CLEANUP(nbd_context_clear) NbdContext a = { 0 };
        CLEANUP(nbd_context_clear) NbdContext b = { 0 };
        uint64_t covered;

        CHECK_INT(nbd_context_take(&a, PAIRS(depths), 40), 0);
        CHECK_INT(nbd_context_take(&b, PAIRS(dirty), 40), 0);
        CHECK_INT(nbd_contexts_intersect(&(NbdContexts) { .depth = &a, .dirty = &b, .top_depth = 2 }, 0, 40, &e, &covered),
                  0);
        CHECK_INT(covered, 40);
        CHECK_INT(e.count, 3);
        CHECK(e.items[0].length == 30 && !e.items[0].below && e.items[0].dirty && !e.items[0].zero);
        CHECK(e.items[1].length == 5 && e.items[1].below && e.items[1].dirty);
        CHECK(e.items[2].length == 5 && e.items[2].below && !e.items[2].dirty);
}

static void without_contexts_all_is_data(void) {
        CLEANUP(source_extents_clear) SourceExtents e = { 0 };
        uint64_t covered;

        CHECK_INT(nbd_contexts_intersect(&(NbdContexts) { .top_depth = 1 }, 7, 50, &e, &covered), 0);
        CHECK_INT(covered, 50);
        CHECK_INT(e.count, 1);
        CHECK(e.items[0].start == 7 && e.items[0].length == 50 && e.items[0].dirty && !e.items[0].zero && !e.items[0].below);
}

int main(void) {
        RUN(contexts_of_other_lengths_are_intersected);
        RUN(shorter_answer_limits_what_is_covered);
        RUN(missing_answer_covers_nothing);
        RUN(lengths_past_the_range_are_cut);
        RUN(only_the_zero_flag_means_zeroes);
        RUN(unknown_bits_of_a_bitmap_are_dirty);
        RUN(entry_without_length_is_refused);
        RUN(no_entries_and_a_second_answer_are_refused);
        RUN(neighbours_over_several_answers_become_one);
        RUN(what_lies_deeper_than_the_top_is_below);
        RUN(without_contexts_all_is_data);
        return unit_result();
}
