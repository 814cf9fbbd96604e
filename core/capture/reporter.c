#include "capture/reporter.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/clock.h"
#include "util/timestamp.h"

#define TICK_MS 500          /* between two calls of progress */
#define TICKS_PER_STATE 2    /* between two writes of the state */
#define RATE_SAMPLES 10      /* ticks over which the rate is taken */

struct Reporter {
        Vm *vm;
        const CaptureOptions *options;
        uint64_t began; /* ms, of clock_now_ms() */

        pthread_t thread;
        bool running;

        pthread_mutex_t lock; /* of all that follows */
        pthread_cond_t wake;
        bool quit, changed;
        CaptureState state;
        atomic_uint_least64_t *done; /* for each disk of the state; grows without the lock */

        uint64_t samples[RATE_SAMPLES]; /* bytes done in all at the last ticks; the thread's own */
        size_t sample_count;
};

int reporter_new(Vm *vm, const CaptureOptions *options, Reporter **ret, Reason *reterr) {
        CLEANUP(reporter_freep) Reporter *reporter = calloc(1, sizeof *reporter);
        int rc;

        if (!reporter)
                return fail_oom(reterr);
        pthread_mutex_init(&reporter->lock, NULL);
        clock_condition_init(&reporter->wake);
        reporter->vm = vm;
        reporter->options = options;
        reporter->began = clock_now_ms();
        reporter->state.phase = CAPTURE_RUNNING;
        reporter->state.started = timestamp_now();
        reporter->state.kind = strdup(capture_wish_name(options->wish));
        if (!reporter->state.kind)
                return fail_oom(reterr);
        rc = capture_state_write(vm, &reporter->state, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(reporter);
        return 0;
}

/* Brings what the other threads counted into the state. With the lock held. */
static uint64_t collect(Reporter *reporter) {
        uint64_t sum = 0;

        for (size_t i = 0; i < reporter->state.disk_count; i++) {
                CaptureDiskProgress *disk = &reporter->state.disks[i];

                disk->done = atomic_load_explicit(&reporter->done[i], memory_order_relaxed);
                disk->total = max_u64(disk->total, disk->done);
                sum += disk->done;
        }
        return sum;
}

static void take_rate(Reporter *reporter, uint64_t sum) {
        uint64_t oldest;
        size_t kept = reporter->sample_count < RATE_SAMPLES ? reporter->sample_count : RATE_SAMPLES - 1;

        memmove(reporter->samples + 1, reporter->samples, kept * sizeof *reporter->samples);
        reporter->samples[0] = sum;
        reporter->sample_count = kept + 1;
        oldest = reporter->samples[kept];
        reporter->state.rate = kept > 0 && sum > oldest ? (sum - oldest) * 1000 / (kept * TICK_MS) : 0;
}

static void *reporter_run(void *context) {
        Reporter *reporter = context;
        unsigned ticks = 0;

        pthread_mutex_lock(&reporter->lock);
        while (!reporter->quit) {
                struct timespec until = clock_in_ms(TICK_MS);
                bool late = false;

                while (!reporter->quit && !reporter->changed && !late)
                        late = pthread_cond_timedwait(&reporter->wake, &reporter->lock, &until) == ETIMEDOUT;
                if (reporter->quit)
                        break;
                if (late) {
                        take_rate(reporter, collect(reporter));
                        ticks++;
                        if (reporter->options->progress)
                                reporter->options->progress(reporter->options->context, &reporter->state);
                }
                if (reporter->changed || ticks >= TICKS_PER_STATE) {
                        /* A state that cannot be written (disk full) is no reason to end the capture. */
                        reporter->changed = false;
                        ticks = 0;
                        (void) capture_state_write(reporter->vm, &reporter->state, NULL);
                }
        }
        pthread_mutex_unlock(&reporter->lock);
        return NULL;
}

int reporter_start(Reporter *reporter, Reason *reterr) {
        int rc = -pthread_create(&reporter->thread, NULL, reporter_run, reporter);

        if (rc < 0)
                return fail_errno(reterr, rc, "cannot start a thread");
        reporter->running = true;
        return 0;
}

static void reporter_halt(Reporter *reporter) {
        if (!reporter->running)
                return;
        pthread_mutex_lock(&reporter->lock);
        reporter->quit = true;
        pthread_cond_signal(&reporter->wake);
        pthread_mutex_unlock(&reporter->lock);
        pthread_join(reporter->thread, NULL);
        reporter->running = false;
}

Reporter *reporter_free(Reporter *reporter) {
        if (!reporter)
                return NULL;
        reporter_halt(reporter);
        capture_state_clear(&reporter->state);
        free(reporter->done);
        pthread_cond_destroy(&reporter->wake);
        pthread_mutex_destroy(&reporter->lock);
        free(reporter);
        return NULL;
}

static void tell_change(Reporter *reporter) {
        reporter->changed = true;
        pthread_cond_signal(&reporter->wake);
}

int reporter_set_kind(Reporter *reporter, PointKind kind) {
        char *name = strdup(point_kind_name(kind));

        if (!name)
                return -ENOMEM;
        pthread_mutex_lock(&reporter->lock);
        free(reporter->state.kind);
        reporter->state.kind = name;
        tell_change(reporter);
        pthread_mutex_unlock(&reporter->lock);
        return 0;
}

int reporter_set_disks(Reporter *reporter, const SourceVm *vm) {
        CaptureDiskProgress *disks = calloc(vm->disk_count, sizeof *disks);
        atomic_uint_least64_t *done = calloc(vm->disk_count, sizeof *done);
        size_t named = 0;

        while (disks && named < vm->disk_count && (disks[named].name = strdup(vm->disks[named].name)))
                named++;
        if (!done || named < vm->disk_count) {
                for (size_t i = 0; i < named; i++)
                        free(disks[i].name);
                free(disks);
                free(done);
                return -ENOMEM;
        }
        pthread_mutex_lock(&reporter->lock);
        reporter->state.disks = disks;
        reporter->state.disk_count = vm->disk_count;
        reporter->done = done;
        tell_change(reporter);
        pthread_mutex_unlock(&reporter->lock);
        return 0;
}

void reporter_set_total(Reporter *reporter, size_t disk, uint64_t total) {
        pthread_mutex_lock(&reporter->lock);
        reporter->state.disks[disk].total = total;
        tell_change(reporter);
        pthread_mutex_unlock(&reporter->lock);
}

void reporter_add_done(Reporter *reporter, size_t disk, uint64_t bytes) {
        atomic_fetch_add_explicit(&reporter->done[disk], bytes, memory_order_relaxed);
}

void reporter_set_waits(Reporter *reporter, const char *words) {
        char *copy = words ? strdup(words) : NULL;

        pthread_mutex_lock(&reporter->lock);
        free(reporter->state.waits);
        reporter->state.waits = copy;
        tell_change(reporter);
        pthread_mutex_unlock(&reporter->lock);
}

/* The thread is gone: the state is the caller's alone. */
static int write_end(Reporter *reporter, Reason *reterr) {
        uint64_t took, sum;

        reporter_halt(reporter);
        took = clock_now_ms() - reporter->began;
        sum = collect(reporter);
        reporter->state.rate = (uint64_t) ((double) sum * 1000 / (double) (took ? took : 1));
        reporter->state.finished = timestamp_now();
        if (reporter->options->progress)
                reporter->options->progress(reporter->options->context, &reporter->state);
        return capture_state_write(reporter->vm, &reporter->state, reterr);
}

int reporter_succeed(Reporter *reporter, const char *point, Reason *reterr) {
        reporter_halt(reporter);
        reporter->state.phase = CAPTURE_IDLE;
        reporter->state.last = strdup(point);
        if (!reporter->state.last)
                return fail_oom(reterr);
        return write_end(reporter, reterr);
}

int reporter_fail(Reporter *reporter, const char *why, Reason *reterr) {
        reporter_halt(reporter);
        reporter->state.phase = CAPTURE_FAILED;
        reporter->state.error = strdup(why);
        if (!reporter->state.error)
                return fail_oom(reterr);
        return write_end(reporter, reterr);
}
