#include "capture/pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "capture/feed.h"
#include "capture/parent.h"
#include "util/bytes.h"

#define CHUNK_SIZE (1u << 20) /* bytes that are read at once where the source does not care; a block where that is more */
#define SLOTS_MIN 2
#define SLOTS_MAX 256
#define THREADS_MAX 16

/* What becomes of a block that was to be read. */
typedef enum Fate {
        STORED,
        DROPPED,    /* the parent has it too */
        UNREADABLE,
} Fate;

/* Where a chunk is from when it is taken until it is written. */
typedef struct Slot {
        Chunk chunk;
        bool ready;
        unsigned char *raw, *scratch; /* made when first needed */
        PackedBlock *blocks;          /* for each block of the chunk */
        Fate *fates;
        uint64_t parent_data;         /* bytes of dropped blocks that are data in the parent */
        Reason why_unreadable;
} Slot;

typedef struct Pipeline {
        const PipelineDisk *disk;
        Stop *stop;
        size_t chunk_size;

        pthread_mutex_t feed_lock; /* of the feed; taken before the other */
        Feed feed;

        pthread_mutex_t lock;      /* of what follows */
        pthread_cond_t room;       /* the thread with the feed waits for a free slot, */
        pthread_cond_t ready;      /* the caller's for the next chunk in order */
        Slot *slots;               /* of chunk N: slot N modulo their number; its thread's alone until it is ready */
        size_t slot_count;
        uint64_t taken, written;   /* chunks */
        bool all_taken, failed;
} Pipeline;

typedef struct Worker {
        Pipeline *pipeline;
        pthread_t thread;
        unsigned char *then; /* the parent's bytes, where they are compared */
} Worker;

static bool skip_is_meant(Pipeline *pipeline, int rc) {
        return rc != -ECANCELED && rc != -ENOMEM && readers_may_skip(pipeline->disk->readers);
}

/* The chunk as a whole could not be read: its blocks, one after the other. */
static int read_blocks(Pipeline *pipeline, Slot *slot, Reason *reterr) {
        uint32_t block_size = pipeline->disk->plan.block_size;

        for (uint64_t at = 0; at < slot->chunk.length; at += block_size) {
                uint64_t length = min_u64(block_size, slot->chunk.length - at);
                Reason reason = REASON_INIT;
                int rc;

                rc = readers_read(pipeline->disk->readers, slot->raw + at, length, slot->chunk.start + at, false, &reason);
                if (rc < 0 && !skip_is_meant(pipeline, rc)) {
                        if (reterr)
                                *reterr = reason;
                        return rc;
                }
                if (rc < 0) {
                        slot->fates[at / block_size] = UNREADABLE;
                        slot->why_unreadable = reason;
                }
        }
        return 0;
}

static int read_chunk(Pipeline *pipeline, Slot *slot, Reason *reterr) {
        int rc = readers_read(pipeline->disk->readers, slot->raw, slot->chunk.length, slot->chunk.start, true, reterr);

        return rc < 0 && skip_is_meant(pipeline, rc) ? read_blocks(pipeline, slot, reterr) : rc;
}

/* Finds the blocks of a chunk that the parent has too: they stay its. */
static int drop_equal_blocks(Worker *worker, Slot *slot, Reason *reterr) {
        const PipelineDisk *disk = worker->pipeline->disk;

        for (uint64_t at = 0; at < slot->chunk.length; at += disk->plan.block_size) {
                uint64_t length = min_u64(disk->plan.block_size, slot->chunk.length - at), data;
                uint64_t start = slot->chunk.start + at;
                Fate *fate = &slot->fates[at / disk->plan.block_size];
                int rc;

                if (*fate != STORED || !parent_has(disk->parent, start, slot->raw + at, length, worker->then))
                        continue;
                rc = parent_count_data(disk->parent, start, length, &data);
                if (rc < 0)
                        return fail_errno(reterr, rc, "cannot read the parent's map");
                slot->parent_data += data;
                *fate = DROPPED;
        }
        return 0;
}

static void pack_chunk(const PipelineDisk *disk, Slot *slot) {
        uint32_t block_size = disk->plan.block_size;

        for (uint64_t at = 0; at < slot->chunk.length; at += block_size)
                if (slot->fates[at / block_size] == STORED)
                        packed_block_pack(disk->codec, disk->codec_level, slot->raw + at,
                                          (uint32_t) min_u64(block_size, slot->chunk.length - at), slot->scratch + at,
                                          &slot->blocks[at / block_size]);
}

static int make_room(const Pipeline *pipeline, Slot *slot, Reason *reterr) {
        size_t count = pipeline->chunk_size / pipeline->disk->plan.block_size;

        if (!slot->raw)
                slot->raw = malloc(pipeline->chunk_size);
        if (!slot->scratch)
                slot->scratch = malloc(pipeline->chunk_size);
        if (!slot->blocks)
                slot->blocks = calloc(count, sizeof *slot->blocks);
        if (!slot->fates)
                slot->fates = calloc(count, sizeof *slot->fates);
        if (!slot->raw || !slot->scratch || !slot->blocks || !slot->fates)
                return fail_oom(reterr);
        for (size_t i = 0; i < count; i++)
                slot->fates[i] = STORED;
        slot->parent_data = 0;
        return 0;
}

static int fill_slot(Worker *worker, Slot *slot, Reason *reterr) {
        Pipeline *pipeline = worker->pipeline;
        int rc;

        if (slot->chunk.zero)
                return 0;
        rc = make_room(pipeline, slot, reterr);
        if (rc == 0)
                rc = read_chunk(pipeline, slot, reterr);
        if (rc == 0 && pipeline->disk->plan.compared)
                rc = drop_equal_blocks(worker, slot, reterr);
        if (rc == 0)
                pack_chunk(pipeline->disk, slot);
        return rc;
}

/* False where all of it fails anyway. */
static bool await_free_slot(Pipeline *pipeline) {
        bool free;

        pthread_mutex_lock(&pipeline->lock);
        while (!pipeline->failed && pipeline->taken - pipeline->written == pipeline->slot_count)
                pthread_cond_wait(&pipeline->room, &pipeline->lock);
        free = !pipeline->failed;
        pthread_mutex_unlock(&pipeline->lock);
        return free;
}

/* 1 and the slot of the next chunk, 0 at the end. */
static int take_slot(Pipeline *pipeline, Slot **ret, Reason *reterr) {
        Chunk chunk;
        int rc = -ECANCELED;

        pthread_mutex_lock(&pipeline->feed_lock);
        if (!stop_requested(pipeline->stop) && await_free_slot(pipeline))
                rc = feed_next(&pipeline->feed, &chunk, reterr);
        if (rc >= 0) {
                pthread_mutex_lock(&pipeline->lock);
                if (rc > 0) {
                        *ret = &pipeline->slots[pipeline->taken++ % pipeline->slot_count];
                        (*ret)->chunk = chunk;
                } else {
                        pipeline->all_taken = true;
                        pthread_cond_signal(&pipeline->ready);
                }
                pthread_mutex_unlock(&pipeline->lock);
        }
        pthread_mutex_unlock(&pipeline->feed_lock);
        return rc;
}

/* Words are there unless this follows from an earlier failure, whose words are kept. */
static void end_all(Pipeline *pipeline, int rc, Reason *reason) {
        fail_within(reason, rc, "%s", pipeline->disk->name);
        stop_because(pipeline->stop, rc, reason);
        pthread_mutex_lock(&pipeline->lock);
        pipeline->failed = true;
        pthread_cond_signal(&pipeline->room);
        pthread_cond_signal(&pipeline->ready);
        pthread_mutex_unlock(&pipeline->lock);
}

static void *worker_run(void *context) {
        Worker *worker = context;
        Pipeline *pipeline = worker->pipeline;
        Reason reason = REASON_INIT;
        Slot *slot = NULL;
        int rc;

        while ((rc = take_slot(pipeline, &slot, &reason)) > 0) {
                rc = fill_slot(worker, slot, &reason);
                if (rc < 0)
                        break;
                pthread_mutex_lock(&pipeline->lock);
                slot->ready = true;
                if (slot == &pipeline->slots[pipeline->written % pipeline->slot_count])
                        pthread_cond_signal(&pipeline->ready);
                pthread_mutex_unlock(&pipeline->lock);
        }
        if (rc < 0)
                end_all(pipeline, rc, &reason);
        return NULL;
}

/* Each run of blocks that share a fate. */
static int append_blocks(const PipelineDisk *disk, const Slot *slot, Reason *reterr) {
        uint32_t block_size = disk->plan.block_size;
        size_t count = divide_up(slot->chunk.length, block_size);

        for (size_t first = 0, end; first < count; first = end) {
                Fate fate = slot->fates[first];
                uint64_t start = slot->chunk.start + first * block_size, length;
                int rc = 0;

                for (end = first + 1; end < count && slot->fates[end] == fate;)
                        end++;
                length = min_u64((end - first) * block_size, slot->chunk.start + slot->chunk.length - start);
                if (fate == STORED)
                        rc = layer_writer_add_blocks(disk->writer, start, slot->blocks + first, end - first, reterr);
                if (fate == UNREADABLE) {
                        rc = layer_writer_add_extent(disk->writer, start, length, EXTENT_UNREADABLE, reterr);
                        if (rc == 0 && disk->skipped)
                                disk->skipped(disk->context, start, length, &slot->why_unreadable);
                }
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static int append_chunk(const PipelineDisk *disk, const Slot *slot, Reason *reterr) {
        int rc;

        if (slot->chunk.zero)
                return layer_writer_add_extent(disk->writer, slot->chunk.start, slot->chunk.length, EXTENT_ZERO, reterr);
        rc = append_blocks(disk, slot, reterr);
        if (rc == 0 && disk->done)
                disk->done(disk->context, slot->chunk.length);
        return rc;
}

/* The next chunk in order; NULL where there is none any more. */
static Slot *await_ready_slot(Pipeline *pipeline) {
        Slot *slot = &pipeline->slots[pipeline->written % pipeline->slot_count];
        bool ready = false;

        pthread_mutex_lock(&pipeline->lock);
        while (!pipeline->failed && !(ready = slot->ready) && !(pipeline->all_taken && pipeline->written == pipeline->taken))
                pthread_cond_wait(&pipeline->ready, &pipeline->lock);
        if (pipeline->failed || !ready)
                slot = NULL;
        pthread_mutex_unlock(&pipeline->lock);
        return slot;
}

static void write_chunks(Pipeline *pipeline, uint64_t *ret_dropped_data) {
        Reason reason = REASON_INIT;
        Slot *slot;

        while ((slot = await_ready_slot(pipeline))) {
                int rc = append_chunk(pipeline->disk, slot, &reason);

                if (rc < 0) {
                        end_all(pipeline, rc, &reason);
                        return;
                }
                *ret_dropped_data += slot->chunk.zero ? 0 : slot->parent_data;
                pthread_mutex_lock(&pipeline->lock);
                slot->ready = false;
                pipeline->written++;
                pthread_cond_signal(&pipeline->room);
                pthread_mutex_unlock(&pipeline->lock);
        }
}

/* Some read while others pack. */
static size_t thread_count(const Pipeline *pipeline) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);

        return min_u64(min_u64(THREADS_MAX, READERS_MAX + max_u64(1, cores > 0 ? (uint64_t) cores : 1)),
                       pipeline->slot_count);
}

/* As many as can be had; one will do. */
static int start_workers(Pipeline *pipeline, Worker *workers, size_t *ret_count, Reason *reterr) {
        size_t wanted = thread_count(pipeline), count = 0;
        int rc = 0;

        for (; count < wanted; count++) {
                Worker *worker = &workers[count];

                worker->pipeline = pipeline;
                worker->then = pipeline->disk->plan.compared ? malloc(pipeline->disk->plan.block_size) : NULL;
                rc = pipeline->disk->plan.compared && !worker->then ? -ENOMEM : 0;
                if (rc == 0)
                        rc = -pthread_create(&worker->thread, NULL, worker_run, worker);
                if (rc < 0) {
                        free(worker->then);
                        break;
                }
        }
        *ret_count = count;
        return count == 0 ? fail_errno(reterr, rc, "cannot start a thread") : 0;
}

static int run(Pipeline *pipeline, uint64_t *ret_dropped_data, Reason *reterr) {
        Worker workers[THREADS_MAX] = { 0 };
        size_t count = 0;
        int rc;

        rc = start_workers(pipeline, workers, &count, reterr);
        if (rc < 0)
                return rc;
        write_chunks(pipeline, ret_dropped_data);
        for (size_t i = 0; i < count; i++) {
                pthread_join(workers[i].thread, NULL);
                free(workers[i].then);
        }
        return stop_requested(pipeline->stop) ? stop_cause(pipeline->stop, -ECANCELED, reterr) : 0;
}

static void pipeline_clear(Pipeline *pipeline) {
        for (size_t i = 0; i < pipeline->slot_count; i++) {
                free(pipeline->slots[i].raw);
                free(pipeline->slots[i].scratch);
                free(pipeline->slots[i].blocks);
                free(pipeline->slots[i].fates);
        }
        free(pipeline->slots);
        feed_clear(&pipeline->feed);
        pthread_cond_destroy(&pipeline->ready);
        pthread_cond_destroy(&pipeline->room);
        pthread_mutex_destroy(&pipeline->lock);
        pthread_mutex_destroy(&pipeline->feed_lock);
}

int pipeline_run(const PipelineDisk *disk, Stop *stop, uint64_t *ret_parent_data, Reason *reterr) {
        size_t chunk_size = max_u64(readers_best(disk->readers) ?: CHUNK_SIZE, disk->plan.block_size);
        size_t slot_count = max_u64(SLOTS_MIN, min_u64(SLOTS_MAX, disk->memory / (2 * chunk_size)));
        CLEANUP(pipeline_clear) Pipeline pipeline = {
                .disk = disk,
                .stop = stop,
                .chunk_size = chunk_size,
                .feed_lock = PTHREAD_MUTEX_INITIALIZER,
                .lock = PTHREAD_MUTEX_INITIALIZER,
                .room = PTHREAD_COND_INITIALIZER,
                .ready = PTHREAD_COND_INITIALIZER,
                .slots = calloc(slot_count, sizeof(Slot)),
        };
        uint64_t dropped_data = 0;
        int rc;

        if (!pipeline.slots)
                return fail_oom(reterr);
        pipeline.slot_count = slot_count;
        feed_init(&pipeline.feed, &disk->plan, disk->parent, disk->readers, disk->outline, chunk_size);
        rc = run(&pipeline, &dropped_data, reterr);
        if (rc == 0)
                *ret_parent_data = pipeline.feed.parent_data + dropped_data;
        return rc;
}
