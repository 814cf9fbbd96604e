#include "formats/virtnbdbackup/lz4-landmark.h"

#include <errno.h>
#include <lz4.h>
#include <string.h>

struct Lz4Landmark {
        size_t packed_length; /* as long as the dictionary: it is not packed */
        Lz4Place place;       /* which has the packed bytes in its dictionary's place */
};

size_t lz4_landmark_size(const Lz4Landmark *landmark) {
        return sizeof *landmark + landmark->packed_length;
}

int lz4_landmark_new(const Lz4Place *place, Lz4Landmark **ret, Reason *reterr) {
        size_t length = place->dictionary_length;
        Lz4Landmark *landmark = malloc(sizeof *landmark + length), *shrunk;
        int packed = 0;

        if (!landmark)
                return fail_oom(reterr);
        landmark->place = *place;
        if (length > 0)
                packed = LZ4_compress_default((const char *) place->dictionary, (char *) landmark->place.dictionary,
                                              (int) length, (int) length - 1);
        landmark->packed_length = packed > 0 ? (size_t) packed : length;
        if (packed <= 0)
                memcpy(landmark->place.dictionary, place->dictionary, length);
        shrunk = realloc(landmark, lz4_landmark_size(landmark));
        *ret = shrunk ?: landmark;
        return 0;
}

int lz4_landmark_place(const Lz4Landmark *landmark, Lz4Place **ret, Reason *reterr) {
        size_t length = landmark->place.dictionary_length;
        CLEANUP(freep) Lz4Place *place = malloc(sizeof *place + length);

        if (!place)
                return fail_oom(reterr);
        *place = landmark->place;
        if (landmark->packed_length == length)
                memcpy(place->dictionary, landmark->place.dictionary, length);
        else if (LZ4_decompress_safe((const char *) landmark->place.dictionary, (char *) place->dictionary,
                                     (int) landmark->packed_length, (int) length) != (int) length)
                return fail(reterr, -EIO, "what is remembered of an LZ4 frame has been changed in memory");
        *ret = STEAL_PTR(place);
        return 0;
}
