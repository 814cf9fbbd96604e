/* A walk over a disk gives every byte once, in pieces that say rightly what is zero. */
#include "restore/sweep.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#include "chain-model.h"
#include "random.h"

#define BLOCK 4096u

typedef struct Seen {
        const PointModel *point;
        uint8_t *times; /* that each block was given out */
        uint32_t grain;
        uint64_t end;
        pthread_mutex_t lock;
        atomic_bool cancel;
        uint64_t fail_at, cancel_at; /* UINT64_MAX: never */
        uint64_t ticked;
} Seen;

static int see(void *context, const SweepPiece *piece, Reason *reterr) {
        Seen *seen = context;
        uint64_t end = piece->start + piece->length;

        CHECK(piece->length > 0 && piece->start % seen->grain == 0 && (end % seen->grain == 0 || end == seen->end));
        CHECK(piece->zero || piece->length <= SWEEP_PIECE);
        for (uint64_t at = piece->start; piece->zero && at < end; at++)
                CHECK_INT(seen->point->kinds[at], BYTE_ZERO);
        pthread_mutex_lock(&seen->lock);
        for (uint64_t at = piece->start; at < end; at += BLOCK)
                CHECK_INT(seen->times[at / BLOCK]++, 0);
        pthread_mutex_unlock(&seen->lock);
        if (piece->start <= seen->cancel_at && seen->cancel_at < end)
                atomic_store(&seen->cancel, true);
        if (piece->start <= seen->fail_at && seen->fail_at < end)
                return fail(reterr, -EIO, "not this one");
        return 0;
}

/* Long runs in one state, as disks have them, and short ones. */
static PointModel make_point(Fixture *f, uint64_t size) {
        PointModel point = point_model_new(0, size, NULL);
        LayerModel layer = layer_model_new(size, BLOCK, "lz4");

        for (uint64_t block = 0; block < layer.count;) {
                ModelState state = (ModelState[]) { MODEL_DATA, MODEL_ZERO, MODEL_UNREADABLE }[random_below(9) * 3 / 10];
                uint64_t run = 1 + random_below(random_below(2) ? 300 : 3);

                for (; run > 0 && block < layer.count; run--, block++) {
                        layer.states[block] = (uint8_t) state;
                        if (state == MODEL_DATA)
                                memset(layer.bytes + block * BLOCK, (int) (1 + block % 255),
                                       layer_model_length(&layer, block));
                }
        }
        point_model_apply(&point, &layer, 0);
        write_point(f, point.name, NULL, 1, POINT_FULL, size, &layer, 1);
        layer_model_clear(&layer);
        return point;
}

static int run(Chain *chain, const PointModel *point, Seen *seen, uint64_t start, unsigned threads, Reason *reason) {
        Sweep sweep = {
                .chain = chain,
                .start = start,
                .end = point->size,
                .grain = seen->grain,
                .zero_min = max_u64(seen->grain, random_below(2) * (64 << 10)),
                .threads = threads,
                .cancel = &seen->cancel,
                .work = see,
                .context = seen,
        };

        seen->point = point;
        seen->end = point->size;
        seen->times = calloc(point->size / BLOCK + 1, 1);
        CHECK(seen->times);
        pthread_mutex_init(&seen->lock, NULL);
        *reason = REASON_INIT;
        return sweep_run(&sweep, reason);
}

static void check_times(const Seen *seen, uint64_t start) {
        for (uint64_t at = 0; at < seen->end; at += BLOCK)
                CHECK_INT(seen->times[at / BLOCK], at >= start);
}

static void with_chain(uint64_t size, void (*test)(Chain *chain, const PointModel *point)) {
        Fixture f = fixture();
        PointModel point = make_point(&f, size);
        Reason reason = REASON_INIT;
        Chain *chain;

        CHECK_INT(chain_open(f.vm, point.name, "vda", &chain, &reason), 0);
        test(chain, &point);
        chain_unref(chain);
        point_model_clear(&point);
        fixture_clear(&f);
}

static void walk(Chain *chain, const PointModel *point) {
        for (uint32_t grain = 4096; grain <= 65536; grain *= 4) {
                uint64_t start = round_down(random_below(point->size), grain);
                Seen seen = { .grain = grain, .fail_at = UINT64_MAX, .cancel_at = UINT64_MAX };
                Reason reason;

                CHECK_INT(run(chain, point, &seen, start, 1 + (unsigned) random_below(8), &reason), 0);
                check_times(&seen, start);
                free(seen.times);
        }
}

static void every_byte_is_in_one_piece(void) {
        for (unsigned i = 0; i < 12; i++)
                with_chain(BLOCK + random_below(12 << 20), walk);
        with_chain(BLOCK, walk);
}

static void fail_somewhere(Chain *chain, const PointModel *point) {
        Seen seen = { .grain = 4096, .fail_at = random_below(point->size), .cancel_at = UINT64_MAX };
        Reason reason;

        CHECK_INT(run(chain, point, &seen, 0, 4, &reason), -EIO);
        CHECK_SAYS(reason, "not this one");
        free(seen.times);
}

static void the_first_error_ends_it(void) {
        with_chain(9 << 20, fail_somewhere);
}

static void cancel_somewhere(Chain *chain, const PointModel *point) {
        Seen seen = { .grain = 4096, .fail_at = UINT64_MAX, .cancel_at = 0 };
        Reason reason;

        CHECK_INT(run(chain, point, &seen, 0, 2, &reason), -ECANCELED);
        free(seen.times);
}

static void it_can_be_canceled(void) {
        with_chain(9 << 20, cancel_somewhere);
}

/* As where a connection that the interruption took from another thread is missed. */
static void cancel_and_fail(Chain *chain, const PointModel *point) {
        Seen seen = { .grain = 4096, .fail_at = 0, .cancel_at = 0 };
        Reason reason;

        CHECK_INT(run(chain, point, &seen, 0, 1, &reason), -ECANCELED);
        CHECK_SAYS(reason, "interrupted");
        free(seen.times);
}

static void what_fails_once_it_is_canceled_does_not_hide_that(void) {
        with_chain(9 << 20, cancel_and_fail);
}

int main(void) {
        random_seed(7);
        RUN(every_byte_is_in_one_piece);
        RUN(the_first_error_ends_it);
        RUN(it_can_be_canceled);
        RUN(what_fails_once_it_is_canceled_does_not_hide_that);
        return unit_result();
}
