#include "restore/sweep.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

#include "chain/region.h"
#include "util/bytes.h"
#include "util/clock.h"

#define THREADS_MAX 16
#define THREADS_A_CORE 4 /* they wait for disks most of their time */
#define THREADS_MIN 12
#define TICK_MS 200

typedef struct SweepRun SweepRun;

typedef struct Worker {
        SweepRun *run;
        pthread_t thread;
        uint64_t at; /* where the piece that it works on begins; UINT64_MAX: none */
} Worker;

struct SweepRun {
        const Sweep *sweep;
        pthread_mutex_t lock; /* of what follows */
        pthread_cond_t over;  /* a worker has ended */
        uint64_t next;        /* given out up to here */
        size_t working;
        int rc;               /* of the first error */
        Reason reason;
        Worker workers[THREADS_MAX];
        size_t worker_count;
};

/* Long zeroes are told at once; data as far as one region tells, or walking over them would cost more with each piece. */
static int look(const Sweep *sweep, uint64_t offset, ChainExtent *ret, Reason *reterr) {
        int rc = chain_extent_at(sweep->chain, offset, ret, reterr);

        if (rc == 0 && ret->state == EXTENT_ZERO && (ret->start + ret->length) % REGION_SIZE == 0)
                rc = chain_next_extent(sweep->chain, offset, ret, reterr);
        return rc;
}

/* Zeroes from offset on, as far as whole grains go: 0 where there are too few of them. */
static int measure_zeroes(const Sweep *sweep, uint64_t offset, uint64_t *ret, Reason *reterr) {
        uint64_t end = offset, stop = min_u64(sweep->end, offset + SWEEP_ZERO_MAX);
        ChainExtent extent;

        while (end < stop) {
                int rc = look(sweep, end, &extent, reterr);

                if (rc < 0)
                        return rc;
                if (extent.state != EXTENT_ZERO)
                        break;
                end = extent.start + extent.length;
        }
        end = end >= stop ? stop : round_down(end, sweep->grain);
        *ret = end < offset || (end - offset < sweep->zero_min && end < sweep->end) ? 0 : end - offset;
        return 0;
}

/* Data from offset on, up to zeroes that are worth it. */
static int measure_data(const Sweep *sweep, uint64_t offset, uint64_t *ret, Reason *reterr) {
        uint64_t stop = min_u64(sweep->end, round_down(offset, SWEEP_PIECE) + SWEEP_PIECE), at = offset, zeroes;
        ChainExtent extent;
        int rc;

        while (at < stop) {
                rc = look(sweep, at, &extent, reterr);
                if (rc < 0)
                        return rc;
                if (extent.state == EXTENT_ZERO && at > offset) {
                        uint64_t whole = min_u64(round_up(at, sweep->grain), stop);

                        rc = whole < stop ? measure_zeroes(sweep, whole, &zeroes, reterr) : 0;
                        if (rc < 0)
                                return rc;
                        if (whole < stop && zeroes > 0) {
                                stop = whole;
                                break;
                        }
                }
                at = extent.start + extent.length;
        }
        *ret = stop - offset;
        return 0;
}

/* The next piece from offset on; offset < end. */
static int next_piece(const Sweep *sweep, uint64_t offset, SweepPiece *ret, Reason *reterr) {
        uint64_t length;
        int rc;

        rc = measure_zeroes(sweep, offset, &length, reterr);
        if (rc == 0 && length > 0) {
                *ret = (SweepPiece) { offset, length, true };
                return 0;
        }
        if (rc == 0)
                rc = measure_data(sweep, offset, &length, reterr);
        if (rc == 0)
                *ret = (SweepPiece) { offset, length, false };
        return rc;
}

static bool is_canceled(const Sweep *sweep) {
        return sweep->cancel && atomic_load(sweep->cancel);
}

/* With the lock held. Whatever fails once all is canceled may do so for that: connections are given up then. */
static void stop(SweepRun *run, int rc, const Reason *reason) {
        if (run->rc < 0)
                return;
        run->reason = *reason;
        run->rc = is_canceled(run->sweep) ? fail(&run->reason, -ECANCELED, "interrupted") : rc;
}

/* Takes the next piece: false where there is none, or all ends. */
static bool take(Worker *worker, SweepPiece *ret) {
        SweepRun *run = worker->run;
        Reason reason = REASON_INIT;
        bool taken = false;
        int rc = 0;

        pthread_mutex_lock(&run->lock);
        worker->at = UINT64_MAX;
        if (is_canceled(run->sweep))
                rc = fail(&reason, -ECANCELED, "interrupted");
        else if (run->rc == 0 && run->next < run->sweep->end)
                rc = next_piece(run->sweep, run->next, ret, &reason);
        if (rc < 0) {
                stop(run, rc, &reason);
        } else if (run->rc == 0 && run->next < run->sweep->end) {
                worker->at = run->next;
                run->next = ret->start + ret->length;
                taken = true;
        }
        pthread_mutex_unlock(&run->lock);
        return taken;
}

static void *work(void *argument) {
        Worker *worker = argument;
        SweepRun *run = worker->run;
        SweepPiece piece;

        while (take(worker, &piece)) {
                Reason reason = REASON_INIT;
                int rc = run->sweep->work(run->sweep->context, &piece, &reason);

                if (rc < 0) { /* the piece stays this worker's: nothing behind it counts as done */
                        pthread_mutex_lock(&run->lock);
                        stop(run, rc, &reason);
                        pthread_mutex_unlock(&run->lock);
                        break;
                }
        }
        pthread_mutex_lock(&run->lock);
        run->working--;
        pthread_cond_signal(&run->over);
        pthread_mutex_unlock(&run->lock);
        return NULL;
}

/* With the lock held. */
static uint64_t done_up_to(const SweepRun *run) {
        uint64_t done = run->next;

        for (size_t i = 0; i < run->worker_count; i++)
                done = min_u64(done, run->workers[i].at);
        return done;
}

/* Until all workers have ended. */
static void watch(SweepRun *run) {
        struct timespec tick = clock_in_ms(TICK_MS);

        pthread_mutex_lock(&run->lock);
        while (run->working > 0) {
                Reason reason = REASON_INIT;
                uint64_t done;
                int rc;

                if (pthread_cond_timedwait(&run->over, &run->lock, &tick) != ETIMEDOUT)
                        continue;
                tick = clock_in_ms(TICK_MS);
                if (run->rc < 0 || !run->sweep->tick)
                        continue;
                done = done_up_to(run);
                pthread_mutex_unlock(&run->lock);
                rc = run->sweep->tick(run->sweep->context, done, &reason);
                pthread_mutex_lock(&run->lock);
                if (rc < 0)
                        stop(run, rc, &reason);
        }
        pthread_mutex_unlock(&run->lock);
}

static size_t count_threads(const Sweep *sweep) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);
        uint64_t wanted = sweep->threads ?: max_u64(THREADS_MIN, cores > 0 ? (uint64_t) cores * THREADS_A_CORE : 0);

        return (size_t) min_u64(wanted, THREADS_MAX);
}

int sweep_run(const Sweep *sweep, Reason *reterr) {
        SweepRun run = { .sweep = sweep, .next = sweep->start };
        size_t wanted = count_threads(sweep);

        pthread_mutex_init(&run.lock, NULL);
        clock_condition_init(&run.over);
        for (size_t i = 0; i < THREADS_MAX; i++)
                run.workers[i] = (Worker) { .run = &run, .at = UINT64_MAX };

        pthread_mutex_lock(&run.lock);
        while (run.worker_count < wanted &&
               pthread_create(&run.workers[run.worker_count].thread, NULL, work, &run.workers[run.worker_count]) == 0)
                run.worker_count++;
        run.working = run.worker_count;
        if (run.worker_count == 0)
                run.rc = fail(&run.reason, -EAGAIN, "cannot start a thread");
        pthread_mutex_unlock(&run.lock);
        watch(&run);
        for (size_t i = 0; i < run.worker_count; i++)
                pthread_join(run.workers[i].thread, NULL);
        pthread_cond_destroy(&run.over);
        pthread_mutex_destroy(&run.lock);
        if (run.rc < 0 && reterr)
                *reterr = run.reason;
        return run.rc;
}
