#include "export/vma-pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "formats/vma/writer.h"
#include "util/bytes.h"
#include "util/clock.h"

#define EXTENT_DISK_BYTES (VMA_WRITE_ENTRIES * VMA_CLUSTER_SIZE) /* of a disk that go into one extent */
#define THREADS_MAX 8u
#define TELL_INTERVAL 250 /* milliseconds */
#define CANCEL_LOOK_MS 1000

/* An extent on its way. */
typedef struct Slot {
        unsigned char *buffer;
        size_t length;   /* of what is to be written */
        size_t source;   /* that it is of */
        uint64_t end;    /* on that disk */
        bool ready;
} Slot;

typedef struct Pipeline {
        const VmaSource *sources;
        size_t source_count;
        const unsigned char *uuid;
        const ExportOptions *options;
        Slot slots[THREADS_MAX + 2];
        size_t slot_count;

        pthread_mutex_t lock; /* of what follows and of the slots' `ready`; nothing else is locked within */
        pthread_cond_t changed;
        size_t next_source;   /* what is read next */
        uint64_t next_start;
        uint64_t taken, written; /* extents */
        bool over;            /* nobody goes on: all has been taken, or something has failed */
        int error;
        Reason reason;
        RestoreProgress *progress;
        uint64_t told; /* ms, of clock_now_ms() */
} Pipeline;

/* Reads what is no zeroes of [at, end), which begins at start, and notes its blocks. The blocks at the edges of a piece may
 * be filled from several. */
static int read_data(const VmaSource *source, unsigned char *data, uint64_t start, uint64_t at, uint64_t end,
                     uint16_t *stored, Reason *reterr) {
        uint64_t first = (at - start) / VMA_BLOCK_SIZE, last = (end - start - 1) / VMA_BLOCK_SIZE;

        for (uint64_t block = first; block <= last; block++) {
                uint16_t bit = (uint16_t) (1u << block % VMA_CLUSTER_BLOCKS), *mask = &stored[block / VMA_CLUSTER_BLOCKS];
                uint64_t block_start = start + block * VMA_BLOCK_SIZE;

                if (!(*mask & bit) && (block_start < at || block_start + VMA_BLOCK_SIZE > end))
                        memset(data + block * VMA_BLOCK_SIZE, 0, VMA_BLOCK_SIZE);
                *mask |= bit;
        }
        return source->chain ? chain_read(source->chain, data + (at - start), end - at, at, reterr)
                             : layer_read(source->layer, data + (at - start), end - at, at, reterr);
}

static int read_extent(const VmaSource *source, unsigned char *data, uint64_t start, uint64_t end, uint16_t *stored,
                       Reason *reterr) {
        ChainExtent extent = { start, end - start, EXTENT_DATA, NULL };

        for (uint64_t at = start; at < end; at = extent.start + extent.length) {
                int rc = source->chain ? chain_extent_at(source->chain, at, &extent, reterr) : 0;

                if (rc == 0 && extent.state != EXTENT_ZERO)
                        rc = read_data(source, data, start, at, min_u64(end, extent.start + extent.length), stored, reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "%s", source->name);
        }
        return 0;
}

/* The next extent to be read, and a slot for it; NULL: there is none. With the lock held. */
static Slot *take_slot(Pipeline *pipeline, uint64_t *ret_start) {
        Slot *slot;

        while (!pipeline->over && pipeline->taken - pipeline->written >= pipeline->slot_count)
                pthread_cond_wait(&pipeline->changed, &pipeline->lock);
        if (pipeline->over)
                return NULL;
        slot = &pipeline->slots[pipeline->taken++ % pipeline->slot_count];
        *ret_start = pipeline->next_start;
        slot->source = pipeline->next_source;
        slot->end = min_u64(pipeline->next_start + EXTENT_DISK_BYTES, pipeline->sources[slot->source].size);
        pipeline->next_start = slot->end;
        if (slot->end == pipeline->sources[slot->source].size) {
                pipeline->next_start = 0;
                pipeline->over = ++pipeline->next_source == pipeline->source_count;
                pthread_cond_broadcast(&pipeline->changed);
        }
        return slot;
}

/* With the lock held; the first one is kept. */
static void stop(Pipeline *pipeline, int rc, const Reason *reason) {
        if (pipeline->error == 0) {
                pipeline->error = rc;
                pipeline->reason = *reason;
        }
        pipeline->over = true;
        pthread_cond_broadcast(&pipeline->changed);
}

static void *read_extents(void *argument) {
        Pipeline *pipeline = argument;
        uint64_t start;
        Slot *slot;

        pthread_mutex_lock(&pipeline->lock);
        while (pipeline->error == 0 && (slot = take_slot(pipeline, &start))) {
                const VmaSource *source = &pipeline->sources[slot->source];
                uint16_t stored[VMA_WRITE_ENTRIES] = { 0 };
                Reason reason = REASON_INIT;
                int rc;

                pthread_mutex_unlock(&pipeline->lock);
                rc = read_extent(source, slot->buffer + VMA_EXTENT_HEADER_SIZE, start, slot->end, stored, &reason);
                if (rc == 0)
                        slot->length = vma_extent_make(slot->buffer, pipeline->uuid, (unsigned) slot->source + 1,
                                                       (uint32_t) (start / VMA_CLUSTER_SIZE),
                                                       (unsigned) divide_up(slot->end - start, VMA_CLUSTER_SIZE), stored);
                pthread_mutex_lock(&pipeline->lock);
                if (rc < 0)
                        stop(pipeline, rc, &reason);
                slot->ready = true;
                pthread_cond_broadcast(&pipeline->changed);
        }
        pthread_mutex_unlock(&pipeline->lock);
        return NULL;
}

static void report(Pipeline *pipeline) {
        uint64_t now = clock_now_ms();

        if (!pipeline->options->progress || now - pipeline->told < TELL_INTERVAL)
                return;
        pipeline->told = now;
        pipeline->options->progress(pipeline->options->context, pipeline->progress, pipeline->source_count);
}

/* Until all is written or something fails. */
static void write_extents(Pipeline *pipeline, Output *output) {
        pthread_mutex_lock(&pipeline->lock);
        while (pipeline->error == 0 && !(pipeline->over && pipeline->written == pipeline->taken)) {
                Slot *slot = &pipeline->slots[pipeline->written % pipeline->slot_count];
                Reason reason = REASON_INIT;
                int rc;

                if (pipeline->options->cancel && atomic_load(pipeline->options->cancel)) {
                        fail(&reason, 0, "interrupted");
                        stop(pipeline, -ECANCELED, &reason);
                        break;
                }
                if (!slot->ready || pipeline->written == pipeline->taken) {
                        struct timespec until = clock_in_ms(CANCEL_LOOK_MS);

                        pthread_cond_timedwait(&pipeline->changed, &pipeline->lock, &until);
                        continue;
                }
                pthread_mutex_unlock(&pipeline->lock);
                rc = output_write(output, slot->buffer, slot->length, &reason);
                pipeline->progress[slot->source].done = slot->end;
                report(pipeline);
                pthread_mutex_lock(&pipeline->lock);
                if (rc < 0)
                        stop(pipeline, rc, &reason);
                slot->ready = false;
                pipeline->written++;
                pthread_cond_broadcast(&pipeline->changed);
        }
        pthread_mutex_unlock(&pipeline->lock);
}

static int run(Pipeline *pipeline, Output *output, size_t wanted, Reason *reterr) {
        pthread_t threads[THREADS_MAX];
        size_t started = 0;
        int rc = 0;

        while (started < wanted && (rc = -pthread_create(&threads[started], NULL, read_extents, pipeline)) == 0)
                started++;
        if (started == 0)
                return fail_errno(reterr, rc, "cannot start a thread");
        write_extents(pipeline, output);
        while (started > 0)
                pthread_join(threads[--started], NULL);
        return pipeline->error < 0 ? fail(reterr, pipeline->error, "%s", pipeline->reason.text) : 0;
}

int vma_pipeline_run(const VmaSource *sources, size_t count, const unsigned char *uuid, Output *output,
                     const ExportOptions *options, Reason *reterr) {
        long processors = sysconf(_SC_NPROCESSORS_ONLN);
        size_t threads = (size_t) min_u64(processors > 0 ? (uint64_t) processors : 1, THREADS_MAX);
        Pipeline pipeline = { .sources = sources, .source_count = count, .uuid = uuid, .options = options };
        int rc = 0;

        pipeline.slot_count = threads + 2;
        pipeline.progress = calloc(count, sizeof *pipeline.progress);
        for (size_t i = 0; i < pipeline.slot_count && rc == 0; i++) {
                pipeline.slots[i].buffer = malloc(VMA_EXTENT_HEADER_SIZE + EXTENT_DISK_BYTES);
                rc = pipeline.slots[i].buffer ? 0 : fail_oom(reterr);
        }
        for (size_t i = 0; pipeline.progress && i < count; i++)
                pipeline.progress[i] = (RestoreProgress) { sources[i].name, 0, sources[i].size };
        pthread_mutex_init(&pipeline.lock, NULL);
        clock_condition_init(&pipeline.changed);
        if (rc == 0)
                rc = pipeline.progress ? run(&pipeline, output, threads, reterr) : fail_oom(reterr);
        pthread_cond_destroy(&pipeline.changed);
        pthread_mutex_destroy(&pipeline.lock);
        for (size_t i = 0; i < pipeline.slot_count; i++)
                free(pipeline.slots[i].buffer);
        free(pipeline.progress);
        return rc;
}
