/* A view reads as its pieces put together, byte for byte. */
#include <errno.h>

#include "chain-model.h"
#include "chain/chain-view.h"

#define DISK (300u << 10)
#define BLOCK 4096
#define DISKS 2
#define PIECES_MAX 8
#define PLACES_MAX 4

typedef struct Case {
        Fixture f;
        PointModel disks[DISKS]; /* each a point of its own */
        ViewPlace places[PIECES_MAX][PLACES_MAX];
        ViewPiece pieces[PIECES_MAX];
        size_t count;
        uint64_t size;
        uint8_t *kinds, *values, *disk; /* of each byte of the view */
} Case;

static void begin(Case *test) {
        memset(test, 0, sizeof *test);
        test->f = fixture();
        for (unsigned i = 0; i < DISKS; i++) {
                LayerModel layer = layer_model_new(DISK, BLOCK, "lz4");

                layer_model_fill(&layer, 0);
                layer_model_note_zeroes(&layer);
                test->disks[i] = point_model_new(i, DISK, NULL);
                point_model_apply(&test->disks[i], &layer, i);
                write_point(&test->f, test->disks[i].name, NULL, i + 1, POINT_FULL, DISK, &layer, 1);
                layer_model_clear(&layer);
        }
}

static void end(Case *test) {
        for (unsigned i = 0; i < DISKS; i++)
                point_model_clear(&test->disks[i]);
        free(test->kinds);
        free(test->values);
        free(test->disk);
        fixture_clear(&test->f);
}

static void open_disks(Case *test, Chain *chains[DISKS]) {
        Reason reason = REASON_INIT;

        for (unsigned i = 0; i < DISKS; i++)
                CHECK_INT(chain_open(test->f.vm, test->disks[i].name, "vda", &chains[i], &reason), 0);
}

static void fill_places(Case *test, ViewPiece *piece, size_t index) {
        piece->places = test->places[index];
        for (size_t i = 0; i < piece->place_count; i++)
                piece->places[i] = (ViewPlace) { random_below(DISKS),
                                                 random_below(DISK - piece->size / piece->place_count + 1) };
}

/* Pieces of random lengths, some of them striped. */
static void choose_pieces(Case *test) {
        test->count = 1 + random_below(PIECES_MAX);
        test->size = 0;
        for (size_t i = 0; i < test->count; i++) {
                ViewPiece *piece = &test->pieces[i];

                *piece = (ViewPiece) { .size = 1 + random_below(DISK), .place_count = 1 };
                if (random_below(2)) {
                        piece->place_count = 2 + random_below(PLACES_MAX - 1);
                        piece->stripe_size = 512u << random_below(6);
                        piece->size = piece->stripe_size * piece->place_count *
                                      (1 + random_below(DISK / piece->stripe_size));
                }
                fill_places(test, piece, i);
                test->size += piece->size;
        }
}

static void make_model(Case *test) {
        uint64_t at = 0;

        test->kinds = realloc(test->kinds, test->size);
        test->values = realloc(test->values, test->size);
        test->disk = realloc(test->disk, test->size);
        for (size_t i = 0; i < test->count; i++) {
                const ViewPiece *piece = &test->pieces[i];

                for (uint64_t byte = 0; byte < piece->size; byte++, at++) {
                        uint64_t stripe = piece->place_count > 1 ? byte / piece->stripe_size : 0;
                        const ViewPlace *place = &piece->places[stripe % piece->place_count];
                        uint64_t from = piece->place_count > 1 ? stripe / piece->place_count * piece->stripe_size +
                                                                         byte % piece->stripe_size
                                                               : byte;

                        test->kinds[at] = test->disks[place->disk].kinds[place->start + from];
                        test->values[at] = test->disks[place->disk].values[place->start + from];
                        test->disk[at] = (uint8_t) place->disk;
                }
        }
}

static bool is_state(const Case *test, uint64_t offset, ExtentState state) {
        ByteKind kind = test->kinds[offset];

        return kind == (state == EXTENT_DATA ? BYTE_DATA : state == EXTENT_ZERO ? BYTE_ZERO : BYTE_LOST);
}

static void check_extents(const Case *test, const ChainView *view) {
        uint64_t allocated = 0, counted;
        ChainExtent extent, before = { 0 };
        Reason reason = REASON_INIT;

        for (uint64_t offset = 0; offset < test->size; offset += extent.length, before = extent) {
                CHECK_INT(chain_view_next_extent(view, offset, &extent, &reason), 0);
                CHECK_INT(extent.start, offset);
                CHECK(extent.length > 0 && extent.length <= test->size - offset);
                CHECK(offset == 0 || extent.state != before.state || strcmp(extent.point, before.point) != 0);
                for (uint64_t at = offset; at < offset + extent.length; at++) {
                        CHECK(is_state(test, at, extent.state));
                        CHECK_TEXT(extent.point, test->disks[test->disk[at]].name);
                }
                allocated += extent.state != EXTENT_ZERO ? extent.length : 0;
        }
        CHECK_INT(chain_view_allocated(view, &counted, &reason), 0);
        CHECK_INT(counted, allocated);
}

static void check_read(const Case *test, const ChainView *view, uint64_t offset, size_t length) {
        CLEANUP(freep) uint8_t *buffer = malloc(length + 1);
        bool lost = memchr(test->kinds + offset, BYTE_LOST, length) != NULL;
        bool zero = !lost && !memchr(test->kinds + offset, BYTE_DATA, length);

        CHECK_INT(chain_view_read(view, buffer, length, offset, NULL), lost ? -EIO : 0);
        CHECK(lost || memcmp(buffer, test->values + offset, length) == 0);
        CHECK_INT(chain_view_is_zero(view, offset, length), zero);
}

static void check_seek(const Case *test, const ChainView *view, uint64_t offset) {
        uint64_t data = offset, hole = offset;

        while (data < test->size && test->kinds[data] == BYTE_ZERO)
                data++;
        while (hole < test->size && test->kinds[hole] != BYTE_ZERO)
                hole++;
        CHECK_INT(chain_view_seek(view, offset, SEEK_DATA), data < test->size ? (int64_t) data : -ENXIO);
        CHECK_INT(chain_view_seek(view, offset, SEEK_HOLE), hole);
}

static void pieces_read_as_what_they_are_put_together_of(void) {
        Case test;
        Reason reason = REASON_INIT;

        begin(&test);
        for (unsigned round = 0; round < 40; round++) {
                CLEANUP(chain_view_freep) ChainView *view = NULL;
                Chain *chains[DISKS];

                open_disks(&test, chains);
                choose_pieces(&test);
                make_model(&test);
                CHECK_INT(chain_view_pieces(chains, DISKS, test.pieces, test.count, &view, &reason), 0);
                CHECK_INT(chain_view_size(view), test.size);
                check_extents(&test, view);
                for (unsigned i = 0; i < 50; i++) {
                        uint64_t offset = random_below(test.size);
                        uint64_t most = min_u64(test.size - offset, i % 4 ? 9000 : 1u << 20);

                        check_read(&test, view, offset, random_below(most + 1));
                        check_seek(&test, view, offset);
                }
                CHECK_INT(chain_view_read(view, &round, 1, test.size, &reason), -EINVAL);
                CHECK_INT(chain_view_seek(view, test.size, SEEK_HOLE), -ENXIO);
                CHECK(chain_view_is_same_place(view, view));
        }
        end(&test);
}

static void what_is_not_within_the_disks_is_refused(void) {
        static const ViewPlace places[] = { { 0, 0 }, { 1, DISK - 8192 }, { 2, 0 }, { 0, DISK }, { 0, UINT64_MAX } };
        const struct {
                ViewPiece piece;
                bool good;
        } cases[] = {
                { { DISK, 0, 1, (ViewPlace *) places }, true },
                { { DISK + 1, 0, 1, (ViewPlace *) places }, false },
                { { 16384, 4096, 2, (ViewPlace *) places }, true },
                { { 16384 + 8192, 4096, 2, (ViewPlace *) places }, false },
                { { 16384, 0, 2, (ViewPlace *) places }, false },
                { { 16384, 3000, 2, (ViewPlace *) places }, false },
                { { 16384, 4096, 3, (ViewPlace *) places }, false },
                { { 1, 0, 1, (ViewPlace *) places + 2 }, false },
                { { 1, 0, 1, (ViewPlace *) places + 3 }, false },
                { { 1, 0, 1, (ViewPlace *) places + 4 }, false },
                { { 0, 0, 1, (ViewPlace *) places }, false },
                { { 1, 0, 0, (ViewPlace *) places }, false },
        };
        Case test;

        begin(&test);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                Reason reason = REASON_INIT;
                ChainView *view = NULL;
                Chain *chains[DISKS];

                open_disks(&test, chains);
                CHECK_INT(chain_view_pieces(chains, DISKS, &cases[i].piece, 1, &view, &reason),
                          cases[i].good ? 0 : -EBADMSG);
                if (view)
                        chain_view_free(view);
                else
                        for (unsigned disk = 0; disk < DISKS; disk++)
                                chain_unref(chains[disk]);
        }
        end(&test);
}

static void what_is_longer_than_any_disk_is_refused(void) {
        static const char *const disks[] = { "vda" };
        const uint64_t size = UINT64_C(1) << 62;
        ViewPlace place = { 0, 0 };
        const ViewPiece pieces[] = { { size, 0, 1, &place }, { size, 0, 1, &place } };
        WITH_FIXTURE(f);
        CLEANUP(manifest_unrefp) Manifest *manifest = sample_manifest("2026-11-20T010203Z", NULL, 1, disks, 1);
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        Reason reason = REASON_INIT;
        ChainView *view = NULL;

        manifest->disks[0].size = size;
        CHECK_INT(manifest_commit(f.vm, manifest, &reason), 0);
        CHECK_INT(chain_open(f.vm, manifest->name, "vda", &chain, &reason), 0);
        CHECK_INT(chain_view_pieces(&chain, 1, pieces, 2, &view, &reason), -EBADMSG);
        CHECK_SAYS(reason, "longer than any disk");
        CHECK(!view);
}

int main(void) {
        RUN(pieces_read_as_what_they_are_put_together_of);
        RUN(what_is_not_within_the_disks_is_refused);
        RUN(what_is_longer_than_any_disk_is_refused);
        return unit_result();
}
