#include "chain/chain-view.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "chain/chain-private.h"
#include "util/bytes.h"

struct ChainView {
        Chain **chains;
        size_t chain_count;
        ViewPiece *pieces;
        uint64_t *ends; /* of the pieces, in the view */
        size_t piece_count;
        uint64_t size;
};

/* Bytes of a view that lie together on a disk. */
typedef struct Spot {
        Chain *chain;
        uint64_t offset, length; /* on the disk */
} Spot;

void view_pieces_free(ViewPiece *pieces, size_t count) {
        for (size_t i = 0; i < count; i++)
                free(pieces[i].places);
        free(pieces);
}

ChainView *chain_view_free(ChainView *view) {
        for (size_t i = 0; i < view->chain_count; i++)
                chain_unref(view->chains[i]);
        view_pieces_free(view->pieces, view->piece_count);
        free(view->chains);
        free(view->ends);
        free(view);
        return NULL;
}

/* ---- making one ---- */

static bool is_within(const Chain *chain, uint64_t start, uint64_t size) {
        return start <= chain_size(chain) && size <= chain_size(chain) - start;
}

/* Stripes are whole ones: where the last would be cut, nothing says how. */
static bool is_sound(Chain *const *chains, size_t chain_count, const ViewPiece *piece) {
        if (piece->size == 0 || piece->place_count == 0 ||
            (piece->place_count > 1 && (piece->stripe_size == 0 || piece->size % piece->place_count != 0 ||
                                        piece->size / piece->place_count % piece->stripe_size != 0)))
                return false;
        for (size_t i = 0; i < piece->place_count; i++)
                if (piece->places[i].disk >= chain_count ||
                    !is_within(chains[piece->places[i].disk], piece->places[i].start, piece->size / piece->place_count))
                        return false;
        return true;
}

static int add_piece(ChainView *view, const ViewPiece *piece, Reason *reterr) {
        ViewPiece *copy = &view->pieces[view->piece_count];

        *copy = *piece;
        copy->places = reallocarray(NULL, piece->place_count, sizeof *copy->places);
        if (!copy->places)
                return fail_oom(reterr);
        memcpy(copy->places, piece->places, piece->place_count * sizeof *copy->places);
        view->piece_count++;
        if (__builtin_add_overflow(view->size, piece->size, &view->size) || view->size > INT64_MAX)
                return fail(reterr, -EBADMSG, "it is longer than any disk");
        view->ends[view->piece_count - 1] = view->size;
        return 0;
}

int chain_view_pieces(Chain *const *chains, size_t chain_count, const ViewPiece *pieces, size_t piece_count, ChainView **ret,
                      Reason *reterr) {
        CLEANUP(chain_view_freep) ChainView *view = calloc(1, sizeof *view);

        if (!view)
                return fail_oom(reterr);
        view->chains = calloc(chain_count, sizeof *view->chains);
        view->pieces = calloc(piece_count, sizeof *view->pieces);
        view->ends = calloc(piece_count, sizeof *view->ends);
        if (!view->chains || !view->pieces || !view->ends)
                return fail_oom(reterr);
        for (size_t i = 0; i < piece_count; i++) {
                int rc;

                if (!is_sound(chains, chain_count, &pieces[i]))
                        return fail(reterr, -EBADMSG, "it does not lie within the disk");
                rc = add_piece(view, &pieces[i], reterr);
                if (rc < 0)
                        return rc;
        }
        memcpy(view->chains, chains, chain_count * sizeof *chains);
        view->chain_count = chain_count;
        *ret = STEAL_PTR(view);
        return 0;
}

int chain_view_range(Chain *chain, uint64_t start, uint64_t size, ChainView **ret, Reason *reterr) {
        ViewPlace place = { 0, start };
        ViewPiece piece = { size, 0, 1, &place };

        return chain_view_pieces(&chain, 1, &piece, size > 0, ret, reterr);
}

int chain_view_whole(Chain *chain, ChainView **ret, Reason *reterr) {
        return chain_view_range(chain, 0, chain_size(chain), ret, reterr);
}

/* ---- finding one's way in it ---- */

uint64_t chain_view_size(const ChainView *view) {
        return view->size;
}

static bool is_same_piece(const ChainView *a, const ChainView *b, size_t number) {
        const ViewPiece *one = &a->pieces[number], *other = &b->pieces[number];
        bool last = number + 1 == a->piece_count; /* where one of them may have grown */

        if (one->stripe_size != other->stripe_size || one->place_count != other->place_count ||
            (one->size != other->size && !last))
                return false;
        for (size_t i = 0; i < one->place_count; i++)
                if (one->places[i].start != other->places[i].start ||
                    !chain_is_same_disk(a->chains[one->places[i].disk], b->chains[other->places[i].disk]))
                        return false;
        return true;
}

bool chain_view_is_same_place(const ChainView *a, const ChainView *b) {
        if (a->piece_count != b->piece_count)
                return false;
        for (size_t i = 0; i < a->piece_count; i++)
                if (!is_same_piece(a, b, i))
                        return false;
        return true;
}

/* The piece that offset (< size) is in; *ret_within: where in that. */
static const ViewPiece *find_piece(const ChainView *view, uint64_t offset, uint64_t *ret_within) {
        size_t low = 0, high = view->piece_count - 1;

        assert(offset < view->size);
        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (view->ends[middle] <= offset)
                        low = middle + 1;
                else
                        high = middle;
        }
        *ret_within = offset - (low > 0 ? view->ends[low - 1] : 0);
        return &view->pieces[low];
}

/* Where a place of the piece has its share of row, which all places have one of. */
static uint64_t row_start(const ViewPiece *piece, size_t place, uint64_t row) {
        return piece->places[place].start + row * piece->stripe_size;
}

static Spot find_spot(const ChainView *view, uint64_t offset) {
        uint64_t within, stripe, left;
        const ViewPiece *piece = find_piece(view, offset, &within);
        size_t place;

        if (piece->place_count == 1)
                return (Spot) { view->chains[piece->places->disk], piece->places->start + within, piece->size - within };
        stripe = within / piece->stripe_size;
        left = piece->stripe_size - within % piece->stripe_size;
        place = (size_t) (stripe % piece->place_count);
        return (Spot) {
                view->chains[piece->places[place].disk],
                row_start(piece, place, stripe / piece->place_count) + within % piece->stripe_size, left,
        };
}

/* ---- extents ---- */

/* From the beginning of a row on, how many bytes of the view are alike in all places: whole rows. */
static int measure_rows(const ChainView *view, const ViewPiece *piece, uint64_t row, const ChainExtent *like, uint64_t *ret,
                        Reason *reterr) {
        uint64_t rows = piece->size / piece->place_count / piece->stripe_size - row;

        for (size_t i = 0; i < piece->place_count && rows > 0; i++) {
                uint64_t start = row_start(piece, i, row);
                ChainExtent extent;
                int rc = chain_wide_extent_at(view->chains[piece->places[i].disk], start, &extent, reterr);

                if (rc < 0)
                        return rc;
                rows = min_u64(rows, (extent.start + extent.length - start) / piece->stripe_size);
                if (!chain_extents_are_alike(&extent, like))
                        rows = 0;
        }
        *ret = rows * piece->stripe_size * piece->place_count;
        return 0;
}

/* The extent from offset on, as far as it is easily told: neighbours may be alike. */
static int extent_at(const ChainView *view, uint64_t offset, ChainExtent *ret, Reason *reterr) {
        Spot spot = find_spot(view, offset);
        uint64_t within, rows = 0;
        const ViewPiece *piece = find_piece(view, offset, &within);
        ChainExtent extent;
        int rc = chain_wide_extent_at(spot.chain, spot.offset, &extent, reterr);

        if (rc >= 0 && piece->place_count > 1 && within % (piece->stripe_size * piece->place_count) == 0)
                rc = measure_rows(view, piece, within / piece->stripe_size / piece->place_count, &extent, &rows, reterr);
        if (rc < 0)
                return rc;
        *ret = (ChainExtent) {
                .start = offset,
                .length = rows ?: min_u64(extent.start + extent.length - spot.offset, spot.length),
                .state = extent.state,
                .point = extent.point,
        };
        return 0;
}

int chain_view_next_extent(const ChainView *view, uint64_t offset, ChainExtent *ret, Reason *reterr) {
        ChainExtent extent, next;
        int rc = extent_at(view, offset, &extent, reterr);

        while (rc >= 0 && extent.start + extent.length < view->size) {
                rc = extent_at(view, extent.start + extent.length, &next, reterr);
                if (rc < 0 || !chain_extents_are_alike(&extent, &next))
                        break;
                extent.length += next.length;
        }
        if (rc < 0)
                return rc;
        *ret = extent;
        return 0;
}

int64_t chain_view_seek(const ChainView *view, uint64_t offset, int whence) {
        if (offset >= view->size)
                return -ENXIO;
        while (offset < view->size) {
                ChainExtent extent;
                int rc = extent_at(view, offset, &extent, NULL);

                if (rc < 0)
                        return rc;
                if ((extent.state == EXTENT_ZERO) == (whence == SEEK_HOLE))
                        return (int64_t) offset;
                offset += extent.length;
        }
        /* There is a hole at the end of every file, as lseek(2) has it. */
        return whence == SEEK_HOLE ? (int64_t) view->size : -ENXIO;
}

int chain_view_allocated(const ChainView *view, uint64_t *ret, Reason *reterr) {
        uint64_t allocated = 0;
        ChainExtent extent;

        for (uint64_t offset = 0; offset < view->size; offset += extent.length) {
                int rc = extent_at(view, offset, &extent, reterr);

                if (rc < 0)
                        return rc;
                if (extent.state != EXTENT_ZERO)
                        allocated += extent.length;
        }
        *ret = allocated;
        return 0;
}

/* ---- bytes ---- */

int chain_view_read(const ChainView *view, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        unsigned char *to = buffer;

        if (offset > view->size || length > view->size - offset)
                return fail(reterr, -EINVAL, "%zu bytes at %llu are past the end", length, (unsigned long long) offset);
        while (length > 0) {
                Spot spot = find_spot(view, offset);
                size_t part = (size_t) min_u64(length, spot.length);
                int rc = chain_read(spot.chain, to, part, spot.offset, reterr);

                if (rc < 0)
                        return rc;
                to += part;
                offset += part;
                length -= part;
        }
        return 0;
}

int chain_view_is_zero(const ChainView *view, uint64_t offset, size_t length) {
        int rc = 1;

        while (rc == 1 && length > 0) {
                Spot spot = find_spot(view, offset);
                size_t part = (size_t) min_u64(length, spot.length);

                rc = chain_is_zero(spot.chain, spot.offset, part);
                offset += part;
                length -= part;
        }
        return rc;
}
