#include "restore/transfer.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "restore/rescue.h"
#include "restore/reservation.h"
#include "restore/sweep.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/scratch.h"

#define NOTE_MS 1000u              /* how much work an interruption may cost */
#define SPARSE_UNIT (64u << 10)    /* zeroes among data are looked for in such units */
#define ZERO_MIN (64u << 10)       /* shorter ones are written with the data around them, where zeroing costs a request */

struct Transfer {
        Chain *chain;
        const char *disk;
        Journal *journal;
        DiskTarget *target;
        const RestoreOptions *options;
        uint64_t size, head;
        uint64_t total, reported;
        atomic_uint_fast64_t done;
        uint64_t noted;      /* the journal's mark */
        uint64_t noted_at; /* ms, of clock_now_ms() */
        Rescue *rescue;
        Reservation *reservation; /* or NULL */
};

/* Counts the data from start on. */
static int survey(Transfer *transfer, uint64_t start, Reason *reterr) {
        const RestoreOptions *options = transfer->options;
        ChainExtent extent;

        for (uint64_t at = start; at < transfer->size; at = extent.start + extent.length) {
                int rc = chain_next_extent(transfer->chain, at, &extent, reterr);

                if (rc < 0)
                        return rc;
                if (options->cancel && atomic_load(options->cancel))
                        return fail(reterr, -ECANCELED, "interrupted");
                if (extent.state == EXTENT_UNREADABLE && !options->skip_unreadable)
                        return rescue_explain(transfer->rescue, at, extent.start + extent.length - at, reterr);
                if (extent.state != EXTENT_ZERO)
                        transfer->total += extent.start + extent.length - at;
        }
        return 0;
}

int transfer_new(Chain *chain, const char *path, Journal *journal, const RestoreOptions *options, Transfer **ret,
                 Reason *reterr) {
        CLEANUP(transfer_freep) Transfer *transfer = calloc(1, sizeof *transfer);
        int rc;

        if (!transfer)
                return fail_oom(reterr);
        transfer->chain = chain;
        transfer->disk = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
        transfer->journal = journal;
        transfer->target = journal->target;
        transfer->options = options;
        transfer->size = chain_size(chain);
        transfer->head = min_u64(JOURNAL_HEAD, transfer->size);
        if (reservation_new(chain, journal->target, &transfer->reservation) < 0)
                return fail_oom(reterr);
        rc = rescue_new(chain, path, options->skip_unreadable, journal->skipped, &transfer->rescue, reterr);
        if (rc == 0)
                rc = survey(transfer, min_u64(journal->done, transfer->size), reterr);
        if (rc < 0)
                return rc;
        if (options->verify)
                transfer->total *= 2;
        *ret = STEAL_PTR(transfer);
        return 0;
}

Transfer *transfer_free(Transfer *transfer) {
        rescue_free(transfer->rescue);
        if (transfer->reservation)
                reservation_free(transfer->reservation);
        free(transfer);
        return NULL;
}

uint64_t transfer_skipped(const Transfer *transfer) {
        return rescue_total(transfer->rescue);
}

static void report(Transfer *transfer, uint64_t done_to) {
        const RestoreOptions *options = transfer->options;
        RestoreProgress progress = { transfer->disk, atomic_load(&transfer->done), transfer->total };

        rescue_tell(transfer->rescue, done_to, transfer->disk, options->skipped, options->context);
        if (progress.done > progress.total) /* zeroes beside data count as such where they are written with it */
                progress.done = progress.total;
        if (options->progress && (progress.done != transfer->reported || progress.done == 0))
                options->progress(options->context, &progress, 1);
        transfer->reported = progress.done;
}

/* Data in which runs of zeroes become holes. */
static int write_sparse(Transfer *transfer, bool clean, const unsigned char *bytes, size_t length, uint64_t offset,
                        Reason *reterr) {
        DiskTarget *target = transfer->target;
        int rc = 0;

        for (size_t at = 0, end; rc == 0 && at < length; at = end) {
                bool zero = bytes_are_zero(bytes + at, min_u64(SPARSE_UNIT, length - at));

                for (end = at; end < length; end += min_u64(SPARSE_UNIT, length - end))
                        if (bytes_are_zero(bytes + end, min_u64(SPARSE_UNIT, length - end)) != zero)
                                break;
                if (!zero) {
                        rc = disk_target_write(target, bytes + at, end - at, offset + at, reterr);
                        continue;
                }
                reservation_stop(transfer->reservation);
                if (!clean || reservation_is_made(transfer->reservation))
                        rc = disk_target_zero(target, end - at, offset + at, reterr);
        }
        return rc;
}

static int copy_piece(void *context, const SweepPiece *piece, Reason *reterr) {
        Transfer *transfer = context;
        DiskTarget *target = transfer->target;
        void *buffer;
        int rc;

        if (piece->zero)
                return target->clean ? 0 : disk_target_zero(target, piece->length, piece->start, reterr);
        buffer = scratch_get(SCRATCH_ANSWER, SWEEP_PIECE);
        if (!buffer)
                return fail_oom(reterr);
        reservation_make(transfer->reservation, piece->start + piece->length);
        rc = rescue_read(transfer->rescue, buffer, piece->length, piece->start, reterr);
        if (rc == 0)
                rc = write_sparse(transfer, target->clean, buffer, piece->length, piece->start, reterr);
        if (rc == 0)
                atomic_fetch_add(&transfer->done, piece->length);
        return rc;
}

/* All before done_to is in the target, if not yet on its disk. */
static int note(Transfer *transfer, uint64_t done_to, Reason *reterr) {
        int rc;

        if (done_to <= transfer->noted)
                return 0;
        rescue_tell(transfer->rescue, done_to, transfer->disk, transfer->options->skipped, transfer->options->context);
        rc = disk_target_sync(transfer->target, reterr);
        if (rc == 0)
                rc = journal_note(transfer->journal, done_to, rescue_told(transfer->rescue), reterr);
        transfer->noted = done_to;
        transfer->noted_at = clock_now_ms();
        return rc;
}

static int tick_copy(void *context, uint64_t done_to, Reason *reterr) {
        Transfer *transfer = context;

        report(transfer, done_to);
        return clock_now_ms() - transfer->noted_at >= NOTE_MS ? note(transfer, done_to, reterr) : 0;
}

static int tick_compare(void *context, uint64_t done_to, Reason *reterr) {
        (void) done_to;
        report(context, 0);
        return 0;
}

static Sweep sweep_over(Transfer *transfer, uint64_t start, uint64_t end) {
        return (Sweep) {
                .chain = transfer->chain,
                .start = start,
                .end = end,
                .grain = transfer->target->grain,
                .zero_min = transfer->target->clean ? transfer->target->grain : ZERO_MIN,
                .threads = transfer->options->threads,
                .cancel = transfer->options->cancel,
                .context = transfer,
        };
}

/* What goes on behind the disk's end may have what a volume manager or a RAID looks for at the end of a device. */
static int zero_rest(const Transfer *transfer, Reason *reterr) {
        DiskTarget *target = transfer->target;
        uint64_t start = round_up(transfer->size, target->grain);
        uint64_t last = target->size > JOURNAL_HEAD ? round_down(target->size - JOURNAL_HEAD, target->grain) : 0;
        int rc = 0;

        if (target->clean || start >= target->size)
                return 0;
        if (start < last)
                rc = disk_target_zero(target, min_u64(JOURNAL_HEAD, last - start), start, reterr);
        if (rc == 0)
                rc = disk_target_zero(target, target->size - max_u64(start, last), max_u64(start, last), reterr);
        return rc;
}

int transfer_body(Transfer *transfer, Reason *reterr) {
        uint64_t start = max_u64(transfer->head, min_u64(transfer->journal->done, transfer->size));
        Sweep sweep = sweep_over(transfer, start, transfer->size);
        int rc;

        sweep.work = copy_piece;
        sweep.tick = tick_copy;
        transfer->noted = start;
        transfer->noted_at = clock_now_ms();
        report(transfer, start);
        rc = sweep_run(&sweep, reterr);
        if (rc == 0)
                rc = zero_rest(transfer, reterr);
        if (rc == 0)
                rc = disk_target_sync(transfer->target, reterr);
        if (rc == 0)
                rc = note(transfer, transfer->size, reterr);
        return rc;
}

int transfer_head(Transfer *transfer, Reason *reterr) {
        uint64_t first = min_u64(transfer->target->grain, transfer->head);
        unsigned char *bytes = scratch_get(SCRATCH_ANSWER, JOURNAL_HEAD);
        int rc;

        if (!bytes)
                return fail_oom(reterr);
        rc = rescue_read(transfer->rescue, bytes, transfer->head, 0, reterr);
        if (rc == 0 && transfer->head > first)
                rc = write_sparse(transfer, false, bytes + first, transfer->head - first, first, reterr);
        if (rc == 0)
                rc = disk_target_sync(transfer->target, reterr);
        if (rc == 0 && first > 0)
                rc = disk_target_write(transfer->target, bytes, first, 0, reterr);
        if (rc == 0)
                rc = disk_target_sync(transfer->target, reterr);
        if (rc == 0)
                report(transfer, transfer->size);
        return rc;
}

static int fail_different(const Transfer *transfer, uint64_t offset, Reason *reterr) {
        return fail(reterr, -EIO, "%s reads back differently from what was written, first at %" PRIu64,
                    transfer->target->unfinished ?: transfer->target->shown, offset);
}

/* Of two buffers that differ, or of one that is not all zeroes. */
static size_t first_difference(const unsigned char *bytes, const unsigned char *others) {
        size_t at = 0;

        while (bytes[at] == (others ? others[at] : 0))
                at++;
        return at;
}

static int compare_data(Transfer *transfer, unsigned char *buffer, uint64_t length, uint64_t offset, Reason *reterr) {
        unsigned char *found = buffer + SWEEP_PIECE;
        int rc;

        rc = rescue_read_again(transfer->rescue, buffer, length, offset, reterr);
        if (rc == 0)
                rc = disk_target_read(transfer->target, found, length, offset, reterr);
        if (rc < 0)
                return rc;
        if (memcmp(buffer, found, length) == 0)
                return 0;
        return fail_different(transfer, offset + first_difference(buffer, found), reterr);
}

static int compare_zeroes(Transfer *transfer, unsigned char *buffer, uint64_t length, uint64_t offset, Reason *reterr) {
        const RestoreOptions *options = transfer->options;
        uint64_t end = offset + length;

        while (offset < end) {
                uint64_t known = round_down(disk_target_zeroes(transfer->target, end - offset, offset),
                                            transfer->target->grain);
                size_t part = min_u64(end - offset, SWEEP_PIECE);
                int rc;

                if (known > 0) {
                        offset += known;
                        continue;
                }
                if (options->cancel && atomic_load(options->cancel))
                        return fail(reterr, -ECANCELED, "interrupted");
                rc = disk_target_read(transfer->target, buffer, part, offset, reterr);
                if (rc < 0)
                        return rc;
                if (!bytes_are_zero(buffer, part))
                        return fail_different(transfer, offset + first_difference(buffer, NULL), reterr);
                offset += part;
        }
        return 0;
}

static int compare_piece(void *context, const SweepPiece *piece, Reason *reterr) {
        Transfer *transfer = context;
        unsigned char *buffer = scratch_get(SCRATCH_ANSWER, 2 * SWEEP_PIECE);
        int rc;

        if (!buffer)
                return fail_oom(reterr);
        if (piece->zero)
                return compare_zeroes(transfer, buffer, piece->length, piece->start, reterr);
        rc = compare_data(transfer, buffer, piece->length, piece->start, reterr);
        if (rc == 0)
                atomic_fetch_add(&transfer->done, piece->length);
        return rc;
}

static int compare(Transfer *transfer, uint64_t start, uint64_t end, Reason *reterr) {
        Sweep sweep = sweep_over(transfer, start, end);
        int rc;

        sweep.zero_min = transfer->target->grain;
        sweep.work = compare_piece;
        sweep.tick = tick_compare;
        rc = sweep_run(&sweep, reterr);
        if (rc == 0)
                report(transfer, 0);
        return rc;
}

int transfer_compare_body(Transfer *transfer, Reason *reterr) {
        return compare(transfer, transfer->head, transfer->size, reterr);
}

int transfer_compare_head(Transfer *transfer, Reason *reterr) {
        return compare(transfer, 0, transfer->head, reterr);
}
