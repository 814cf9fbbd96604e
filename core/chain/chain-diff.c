#include "chain/chain-diff.h"

#include <errno.h>
#include <string.h>

#include "util/bytes.h"
#include "util/parallel.h"

#define PIECE (1u << 20)
#define PIECES 8 /* that are read at once */
#define THREADS 4
#define BLOCKS (PIECE / DIFF_BLOCK)

typedef enum Verdict { SAME, DIFFERENT, UNREADABLE } Verdict;

/* A range in which both sides have bytes to be compared. */
typedef struct Piece {
        uint64_t start;
        size_t length;
        int error; /* -ENOMEM; what cannot be read is a verdict */
        Reason reason;
        uint8_t verdicts[BLOCKS];
} Piece;

typedef struct Walk {
        const ChainDiff *diff;
        uint64_t size; /* of the longer one */
        bool is_one_disk; /* the same layer at the same place is the same bytes */
        ChainExtent before, after; /* that the walk is in; length 0: not asked for yet */
        ChainExtent pending;       /* to be seen */
        bool pending_absent;
        Piece *pieces;
        bool unreadable;
        Reason reason;
} Walk;

static int flush(Walk *walk) {
        int rc = walk->pending.length > 0 ? walk->diff->see(walk->diff->context, &walk->pending, walk->pending_absent) : 0;

        walk->pending.length = 0;
        return rc;
}

static bool is_same_point(const char *a, const char *b) {
        return a == b || (a && b && strcmp(a, b) == 0);
}

static int add(Walk *walk, uint64_t start, uint64_t length, ExtentState state, const char *point, bool absent) {
        ChainExtent *pending = &walk->pending;
        int rc;

        if (pending->length > 0 && pending->start + pending->length == start && walk->pending_absent == absent &&
            pending->state == state && is_same_point(pending->point, point)) {
                pending->length += length;
                return 0;
        }
        rc = flush(walk);
        *pending = (ChainExtent) { start, length, state, point };
        walk->pending_absent = absent;
        return rc;
}

static void note_unreadable(Walk *walk, const char *words) {
        if (!walk->unreadable)
                fail(&walk->reason, 0, "%s", words);
        walk->unreadable = true;
}

/* ---- bytes ---- */

/* Reads as much as can be had, block by block where not all can; those that cannot are UNREADABLE. */
static void read_side(const ChainView *view, const ChainExtent *extent, Piece *piece, unsigned char *buffer) {
        Reason reason = REASON_INIT;
        int rc;

        if (extent->state == EXTENT_ZERO) {
                memset(buffer, 0, piece->length);
                return;
        }
        rc = chain_view_read(view, buffer, piece->length, piece->start, &reason);
        if (rc == -ENOMEM)
                piece->error = rc;
        if (rc >= 0 || rc == -ENOMEM)
                return;
        if (!*piece->reason.text)
                piece->reason = reason;
        for (size_t at = 0, i = 0; at < piece->length; at += DIFF_BLOCK, i++)
                if (chain_view_read(view, buffer + at, (size_t) min_u64(DIFF_BLOCK, piece->length - at), piece->start + at,
                                    NULL) < 0)
                        piece->verdicts[i] = UNREADABLE;
}

static void compare_piece(void *context, size_t index) {
        Walk *walk = context;
        Piece *piece = &walk->pieces[index];
        unsigned char *buffers = malloc(2 * PIECE);

        memset(piece->verdicts, SAME, sizeof piece->verdicts);
        piece->reason = REASON_INIT;
        piece->error = buffers ? 0 : -ENOMEM;
        if (!buffers)
                return;
        read_side(walk->diff->before, &walk->before, piece, buffers);
        read_side(walk->diff->after, &walk->after, piece, buffers + PIECE);
        for (size_t at = 0, i = 0; at < piece->length; at += DIFF_BLOCK, i++)
                if (piece->verdicts[i] == SAME &&
                    memcmp(buffers + at, buffers + PIECE + at, min_u64(DIFF_BLOCK, piece->length - at)) != 0)
                        piece->verdicts[i] = DIFFERENT;
        free(buffers);
}

static int add_piece(Walk *walk, const Piece *piece) {
        int rc = piece->error;

        if (*piece->reason.text)
                note_unreadable(walk, piece->reason.text);
        for (size_t at = 0, i = 0; rc >= 0 && at < piece->length; at += DIFF_BLOCK, i++) {
                uint64_t length = min_u64(DIFF_BLOCK, piece->length - at);

                if (piece->verdicts[i] != SAME)
                        rc = add(walk, piece->start + at, length,
                                 piece->verdicts[i] == UNREADABLE ? EXTENT_UNREADABLE : walk->after.state, walk->after.point,
                                 false);
        }
        return rc;
}

static int tell(const Walk *walk, uint64_t done) {
        const ChainDiff *diff = walk->diff;

        return diff->progress ? diff->progress(diff->context, done, walk->size) : 0;
}

/* Blocks begin at multiples of their size, whatever the range. */
static int compare(Walk *walk, uint64_t start, uint64_t end) {
        int rc = 0;

        while (rc >= 0 && start < end) {
                size_t count = 0;

                for (; count < PIECES && start < end; count++) {
                        uint64_t next = min_u64(round_down(start, PIECE) + PIECE, end);

                        walk->pieces[count].start = start;
                        /* The first block of a range that begins within one is shorter. */
                        if (start % DIFF_BLOCK)
                                next = min_u64(next, round_up(start, DIFF_BLOCK));
                        walk->pieces[count].length = (size_t) (next - start);
                        start = next;
                }
                parallel_for(count, THREADS, compare_piece, walk);
                for (size_t i = 0; rc >= 0 && i < count; i++)
                        rc = add_piece(walk, &walk->pieces[i]);
                if (rc >= 0)
                        rc = tell(walk, start);
        }
        return rc;
}

/* ---- maps ---- */

/* The words for a range that a map says is unreadable. */
static void explain(Walk *walk, uint64_t start, uint64_t end) {
        const ChainDiff *diff = walk->diff;
        unsigned char bytes[512];
        size_t length = (size_t) min_u64(sizeof bytes, end - start);
        Reason reason = REASON_INIT;

        if (!walk->unreadable && (chain_view_read(diff->before, bytes, length, start, &reason) < 0 ||
                                  chain_view_read(diff->after, bytes, length, start, &reason) < 0))
                note_unreadable(walk, reason.text);
        walk->unreadable = true;
}

/* A range that each side has in one state. */
static int judge(Walk *walk, uint64_t start, uint64_t end) {
        const ChainExtent *before = &walk->before, *after = &walk->after;

        if (before->state == EXTENT_UNREADABLE || after->state == EXTENT_UNREADABLE) {
                explain(walk, start, end);
                return add(walk, start, end - start, EXTENT_UNREADABLE, after->point, false);
        }
        if (before->state == EXTENT_ZERO && after->state == EXTENT_ZERO)
                return 0;
        if (walk->is_one_disk && before->state == after->state && is_same_point(before->point, after->point))
                return 0;
        if (walk->diff->maps_only)
                return add(walk, start, end - start, after->state, after->point, false);
        return compare(walk, start, end);
}

/* Makes *extent the one that offset is in. */
static int enter(const ChainView *view, uint64_t offset, ChainExtent *extent, Reason *reterr) {
        if (extent->length > 0 && offset < extent->start + extent->length)
                return 0;
        return chain_view_next_extent(view, offset, extent, reterr);
}

static int step(Walk *walk, uint64_t *offset, Reason *reterr) {
        const ChainView *before = walk->diff->before, *after = walk->diff->after;
        bool was = before && *offset < chain_view_size(before), is = *offset < chain_view_size(after);
        uint64_t start = *offset, end = UINT64_MAX;
        int rc = 0;

        if (was) {
                rc = enter(before, start, &walk->before, reterr);
                end = walk->before.start + walk->before.length;
        }
        if (rc >= 0 && is) {
                rc = enter(after, start, &walk->after, reterr);
                end = min_u64(end, walk->after.start + walk->after.length);
        }
        if (rc < 0)
                return rc;
        *offset = end;
        if (!is)
                return add(walk, start, end - start, EXTENT_ZERO, NULL, true);
        if (!was)
                return add(walk, start, end - start, walk->after.state, walk->after.point, false);
        return judge(walk, start, end);
}

int chain_diff(const ChainDiff *diff, Reason *reterr) {
        CLEANUP(freep) Piece *pieces = calloc(PIECES, sizeof *pieces);
        uint64_t size = max_u64(diff->before ? chain_view_size(diff->before) : 0, chain_view_size(diff->after));
        Walk walk = { .diff = diff, .size = size, .pieces = pieces, .reason = REASON_INIT };
        int rc = 0;

        if (!pieces)
                return fail_oom(reterr);
        walk.is_one_disk = diff->before && chain_view_is_same_place(diff->before, diff->after);
        for (uint64_t offset = 0; rc >= 0 && offset < size;) {
                rc = step(&walk, &offset, reterr);
                if (rc >= 0)
                        rc = tell(&walk, min_u64(offset, size));
        }
        if (rc >= 0)
                rc = flush(&walk);
        if (rc == -ENOMEM)
                return fail_oom(reterr);
        if (rc < 0)
                return rc;
        if (walk.unreadable)
                fail(reterr, 0, "%s", walk.reason.text);
        return walk.unreadable;
}
