/* Places in LZ4 frames come back from landmarks as they were. */
#include "formats/virtnbdbackup/lz4-landmark.h"
#include "random.h"
#include "unit.h"

#define DICTIONARY 65536u

static Lz4Place *new_place(size_t length) {
        Lz4Place *place = calloc(1, sizeof *place + length);

        CHECK(place);
        place->header.content = 32u << 20;
        place->header.linked = length > 0;
        place->offset = 12345;
        place->reached = 2u << 20;
        place->dictionary_length = length;
        return place;
}

/* The size of its landmark. */
static size_t check(const Lz4Place *place) {
        CLEANUP(freep) Lz4Landmark *landmark = NULL;
        CLEANUP(freep) Lz4Place *back = NULL;
        Reason reason = REASON_INIT;

        CHECK_INT(lz4_landmark_new(place, &landmark, &reason), 0);
        CHECK_INT(lz4_landmark_place(landmark, &back, &reason), 0);
        CHECK(memcmp(back, place, sizeof *place + place->dictionary_length) == 0);
        return lz4_landmark_size(landmark);
}

static void a_dictionary_that_shrinks_takes_less(void) {
        CLEANUP(freep) Lz4Place *place = new_place(DICTIONARY);

        for (size_t i = 0; i < DICTIONARY; i++)
                place->dictionary[i] = (unsigned char) (i % 100);
        CHECK(check(place) < sizeof *place + DICTIONARY / 10);
}

static void a_dictionary_that_does_not_shrink_is_kept_as_it_is(void) {
        CLEANUP(freep) Lz4Place *place = new_place(DICTIONARY);

        for (size_t i = 0; i < DICTIONARY; i++)
                place->dictionary[i] = (unsigned char) random_below(256);
        CHECK(check(place) < sizeof *place + DICTIONARY + 100);
}

static void a_place_without_a_dictionary_is_one_as_well(void) {
        for (size_t length = 0; length < 20; length++) {
                CLEANUP(freep) Lz4Place *place = new_place(length);

                check(place);
        }
}

int main(void) {
        RUN(a_dictionary_that_shrinks_takes_less);
        RUN(a_dictionary_that_does_not_shrink_is_kept_as_it_is);
        RUN(a_place_without_a_dictionary_is_one_as_well);
        return unit_result();
}
