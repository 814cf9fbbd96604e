#include "capture/pipeline.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "util/bytes.h"

#define CHUNK_SIZE (1u << 20) /* bytes that a thread reads at once; a block where that is more */
#define COMPARE_SIZE (64u << 10) /* bytes of the parent at once */
#define THREADS_MAX 4

/* A part of a plan's item, in the order of the disk. */
typedef struct Chunk {
        uint64_t ticket; /* its place in that order */
        uint64_t start, length;
        bool zero;
} Chunk;

typedef struct Pipeline {
        const PipelineDisk *disk;
        Stop *stop;
        size_t chunk_size;
        pthread_mutex_t *reader_locks;

        pthread_mutex_t plan_lock; /* of what follows; a reader's lock may be taken within */
        Plan plan;
        size_t item;               /* the next of the plan, and how far it has been given out */
        uint64_t item_done;
        uint64_t window_end;       /* planned up to here */
        uint64_t next_ticket;
        uint64_t parent_data;
        SourceExtents source_extents;
        PlanParent parent;

        pthread_mutex_t turn_lock; /* of what follows; taken within nothing */
        pthread_cond_t turn_changed;
        uint64_t turn;             /* whose ticket may append: the writer is that thread's */
        bool failed;
} Pipeline;

typedef struct Worker {
        Pipeline *pipeline;
        size_t reader;
        pthread_t thread;
        unsigned char *raw, *scratch, *then; /* then: the parent's bytes, where they are compared */
        PackedBlock *blocks;
        bool *dropped;                       /* for each block: the parent has it too */
} Worker;

size_t pipeline_thread_count(void) {
        long cores = sysconf(_SC_NPROCESSORS_ONLN);

        return (size_t) min_u64(THREADS_MAX, cores > 0 ? 2 * (uint64_t) cores : 1);
}

static int load_parent(Chain *parent, uint64_t start, uint64_t end, ParentExtents *ret) {
        end = min_u64(end, chain_size(parent));
        ret->count = 0;
        while (start < end) {
                ChainExtent extent;
                ParentState state;
                uint64_t extent_end;
                int rc;

                rc = chain_extent_at(parent, start, &extent, NULL);
                if (rc < 0 && rc != -EIO)
                        return rc;
                state = extent.state == EXTENT_DATA ? PARENT_DATA : extent.state == EXTENT_ZERO ? PARENT_ZERO : PARENT_LOST;
                extent_end = min_u64(extent.start + extent.length, end);
                rc = parent_extents_add(ret, start, extent_end - start, state);
                if (rc < 0)
                        return rc;
                start = extent_end;
        }
        return 0;
}

static bool parent_is_zero(void *context, uint64_t start, uint64_t length) {
        unsigned char bytes[COMPARE_SIZE];

        for (uint64_t end = start + length, part; start < end; start += part) {
                part = min_u64(end - start, sizeof bytes);
                /* What cannot be read is better read from the source. */
                if (chain_read(context, bytes, part, start, NULL) < 0 || !bytes_are_zero(bytes, part))
                        return false;
        }
        return true;
}

static int plan_next_window(Worker *worker, Reason *reterr) {
        Pipeline *pipeline = worker->pipeline;
        const PipelineDisk *disk = pipeline->disk;
        uint64_t start = pipeline->window_end;
        uint64_t length = min_u64(WINDOW_SIZE, disk->plan.size - start);
        int rc;

        source_extents_clear(&pipeline->source_extents);
        pthread_mutex_lock(&pipeline->reader_locks[worker->reader]);
        rc = source_extents(disk->readers[worker->reader], start, length, &pipeline->source_extents, reterr);
        pthread_mutex_unlock(&pipeline->reader_locks[worker->reader]);
        if (rc < 0)
                return rc;
        if (disk->parent) {
                rc = load_parent(disk->parent, start, start + length, &pipeline->parent.extents);
                if (rc < 0)
                        return fail_errno(reterr, rc, "cannot read the parent's map");
        }
        rc = plan_window(&disk->plan, start, length, &pipeline->source_extents,
                         disk->parent ? &pipeline->parent : NULL, &pipeline->plan);
        if (rc < 0)
                return fail_oom(reterr);
        pipeline->parent_data += pipeline->plan.parent_data;
        pipeline->item = 0;
        pipeline->item_done = 0;
        pipeline->window_end = start + length;
        return 0;
}

/* 1 and the next chunk, 0 at the end. */
static int take_chunk(Worker *worker, Chunk *ret, Reason *reterr) {
        Pipeline *pipeline = worker->pipeline;
        const PlanItem *item;
        int rc = 0;

        pthread_mutex_lock(&pipeline->plan_lock);
        while (rc == 0 && pipeline->item == pipeline->plan.count && pipeline->window_end < pipeline->disk->plan.size)
                rc = stop_requested(pipeline->stop) ? -ECANCELED : plan_next_window(worker, reterr);
        if (rc == 0 && pipeline->item < pipeline->plan.count) {
                item = &pipeline->plan.items[pipeline->item];
                *ret = (Chunk) { pipeline->next_ticket++, item->start + pipeline->item_done,
                                 item->length - pipeline->item_done, item->zero };
                if (!ret->zero)
                        ret->length = min_u64(ret->length, pipeline->chunk_size);
                pipeline->item_done += ret->length;
                if (pipeline->item_done == item->length) {
                        pipeline->item++;
                        pipeline->item_done = 0;
                }
                rc = 1;
        }
        pthread_mutex_unlock(&pipeline->plan_lock);
        return rc;
}

static int read_chunk(Worker *worker, const Chunk *chunk, Reason *reterr) {
        Pipeline *pipeline = worker->pipeline;
        SourceReader *reader = pipeline->disk->readers[worker->reader];

        for (uint64_t done = 0, part; done < chunk->length; done += part) {
                int rc;

                part = min_u64(chunk->length - done, reader->read_max);
                pthread_mutex_lock(&pipeline->reader_locks[worker->reader]);
                rc = source_read(reader, worker->raw + done, part, chunk->start + done, reterr);
                pthread_mutex_unlock(&pipeline->reader_locks[worker->reader]);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

/* Whether the parent has the same bytes as those read. What it cannot deliver it does not have. */
static bool parent_has(Worker *worker, const Chunk *chunk, uint64_t at, uint64_t length) {
        Chain *parent = worker->pipeline->disk->parent;
        uint64_t start = chunk->start + at;

        if (start + length > chain_size(parent))
                return false;
        if (chain_is_zero(parent, start, length) == 1)
                return bytes_are_zero(worker->raw + at, length);
        return chain_read(parent, worker->then, length, start, NULL) == 0 &&
               memcmp(worker->raw + at, worker->then, length) == 0;
}

static int count_parent_data(Chain *parent, uint64_t start, uint64_t length, uint64_t *ret) {
        CLEANUP(parent_extents_clear) ParentExtents extents = { 0 };
        int rc = load_parent(parent, start, start + length, &extents);

        if (rc < 0)
                return rc;
        *ret = 0;
        for (size_t i = 0; i < extents.count; i++)
                *ret += extents.items[i].state == PARENT_DATA ? extents.items[i].length : 0;
        return 0;
}

/* Finds the blocks of a chunk that the parent has too: they stay its. */
static int drop_equal_blocks(Worker *worker, const Chunk *chunk, Reason *reterr) {
        Pipeline *pipeline = worker->pipeline;
        uint32_t block_size = pipeline->disk->plan.block_size;
        bool whole = parent_has(worker, chunk, 0, chunk->length);
        uint64_t parent_data = 0;

        for (uint64_t at = 0; at < chunk->length; at += block_size) {
                uint64_t length = min_u64(block_size, chunk->length - at), data;
                bool dropped = whole || parent_has(worker, chunk, at, length);
                int rc;

                worker->dropped[at / block_size] = dropped;
                if (!dropped)
                        continue;
                rc = count_parent_data(pipeline->disk->parent, chunk->start + at, length, &data);
                if (rc < 0)
                        return fail_errno(reterr, rc, "cannot read the parent's map");
                parent_data += data;
        }
        pthread_mutex_lock(&pipeline->plan_lock);
        pipeline->parent_data += parent_data;
        pthread_mutex_unlock(&pipeline->plan_lock);
        return 0;
}

/* All blocks but those that are dropped. */
static void pack_chunk(Worker *worker, const Chunk *chunk) {
        uint32_t block_size = worker->pipeline->disk->plan.block_size;

        for (uint64_t at = 0; at < chunk->length; at += block_size)
                if (!worker->dropped[at / block_size])
                        packed_block_pack(worker->pipeline->disk->codec, worker->raw + at,
                                          (uint32_t) min_u64(block_size, chunk->length - at), worker->scratch + at,
                                          &worker->blocks[at / block_size]);
}

/* Each run of blocks that are not dropped. */
static int append_blocks(Worker *worker, const Chunk *chunk, Reason *reterr) {
        const PipelineDisk *disk = worker->pipeline->disk;
        size_t count = divide_up(chunk->length, disk->plan.block_size);

        for (size_t first = 0, end; first < count; first = end) {
                bool dropped = worker->dropped[first];
                int rc;

                for (end = first + 1; end < count && worker->dropped[end] == dropped;)
                        end++;
                if (dropped)
                        continue;
                rc = layer_writer_add_blocks(disk->writer, chunk->start + first * disk->plan.block_size,
                                             worker->blocks + first, end - first, reterr);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

/* False where another thread failed: the turn will never come. */
static bool await_turn(Pipeline *pipeline, uint64_t ticket) {
        bool ours;

        pthread_mutex_lock(&pipeline->turn_lock);
        while (!pipeline->failed && pipeline->turn != ticket)
                pthread_cond_wait(&pipeline->turn_changed, &pipeline->turn_lock);
        ours = !pipeline->failed;
        pthread_mutex_unlock(&pipeline->turn_lock);
        return ours;
}

static void pass_turn(Pipeline *pipeline, bool failed) {
        pthread_mutex_lock(&pipeline->turn_lock);
        pipeline->turn++;
        pipeline->failed |= failed;
        pthread_cond_broadcast(&pipeline->turn_changed);
        pthread_mutex_unlock(&pipeline->turn_lock);
}

static int copy_chunk(Worker *worker, const Chunk *chunk, Reason *reterr) {
        Pipeline *pipeline = worker->pipeline;
        const PipelineDisk *disk = pipeline->disk;
        int rc;

        if (!chunk->zero) {
                rc = read_chunk(worker, chunk, reterr);
                if (rc == 0 && disk->plan.compared)
                        rc = drop_equal_blocks(worker, chunk, reterr);
                if (rc < 0)
                        return rc;
                pack_chunk(worker, chunk);
        }
        if (!await_turn(pipeline, chunk->ticket))
                return -ECANCELED;
        if (chunk->zero)
                rc = layer_writer_add_extent(disk->writer, chunk->start, chunk->length, EXTENT_ZERO, reterr);
        else
                rc = append_blocks(worker, chunk, reterr);
        if (rc < 0)
                return rc;
        pass_turn(pipeline, false);
        if (!chunk->zero && disk->done)
                disk->done(disk->context, chunk->length);
        return 0;
}

static void *worker_run(void *context) {
        Worker *worker = context;
        Pipeline *pipeline = worker->pipeline;
        Reason reason = REASON_INIT;
        Chunk chunk = { 0 };
        int rc;

        for (;;) {
                rc = stop_requested(pipeline->stop) ? -ECANCELED : take_chunk(worker, &chunk, &reason);
                if (rc <= 0)
                        break;
                rc = copy_chunk(worker, &chunk, &reason);
                if (rc < 0)
                        break;
        }
        if (rc < 0) {
                /* Words are there unless this follows from an earlier failure, whose words are kept. */
                fail_within(&reason, rc, "%s", pipeline->disk->name);
                stop_because(pipeline->stop, rc, &reason);
                pass_turn(pipeline, true);
        }
        return NULL;
}

static void worker_clear(Worker *worker) {
        free(worker->raw);
        free(worker->scratch);
        free(worker->then);
        free(worker->blocks);
        free(worker->dropped);
}

static int worker_init(Worker *worker, Pipeline *pipeline, size_t index) {
        size_t count = pipeline->chunk_size / pipeline->disk->plan.block_size;

        worker->pipeline = pipeline;
        worker->reader = index % pipeline->disk->reader_count;
        worker->raw = malloc(pipeline->chunk_size);
        worker->scratch = malloc(pipeline->chunk_size);
        worker->then = pipeline->disk->plan.compared ? malloc(pipeline->chunk_size) : NULL;
        worker->blocks = calloc(count, sizeof *worker->blocks);
        worker->dropped = calloc(count, sizeof *worker->dropped);
        if (worker->raw && worker->scratch && worker->blocks && worker->dropped &&
            (worker->then || !pipeline->disk->plan.compared))
                return 0;
        worker_clear(worker);
        return -ENOMEM;
}

/* Runs as many threads as can be had; none is needed but the caller's. */
static int run_workers(Pipeline *pipeline, Reason *reterr) {
        Worker workers[THREADS_MAX] = { 0 };
        size_t count = 0, wanted = pipeline_thread_count();

        while (count < wanted && worker_init(&workers[count], pipeline, count) == 0)
                count++;
        if (count == 0)
                return fail_oom(reterr);
        for (size_t i = 1; i < count; i++)
                if (pthread_create(&workers[i].thread, NULL, worker_run, &workers[i]) != 0) {
                        while (count > i)
                                worker_clear(&workers[--count]);
                }
        worker_run(&workers[0]);
        for (size_t i = 1; i < count; i++)
                pthread_join(workers[i].thread, NULL);
        for (size_t i = 0; i < count; i++)
                worker_clear(&workers[i]);
        return stop_requested(pipeline->stop) ? stop_cause(pipeline->stop, -ECANCELED, reterr) : 0;
}

int pipeline_run(const PipelineDisk *disk, Stop *stop, uint64_t *ret_parent_data, Reason *reterr) {
        CLEANUP(freep) pthread_mutex_t *reader_locks = calloc(disk->reader_count, sizeof *reader_locks);
        Pipeline pipeline = {
                .disk = disk,
                .stop = stop,
                .chunk_size = max_u64(CHUNK_SIZE, disk->plan.block_size),
                .reader_locks = reader_locks,
                .parent = { .is_zero = parent_is_zero, .context = disk->parent },
                .plan_lock = PTHREAD_MUTEX_INITIALIZER,
                .turn_lock = PTHREAD_MUTEX_INITIALIZER,
                .turn_changed = PTHREAD_COND_INITIALIZER,
        };
        int rc;

        if (!reader_locks)
                return fail_oom(reterr);
        for (size_t i = 0; i < disk->reader_count; i++)
                pthread_mutex_init(&reader_locks[i], NULL);
        rc = run_workers(&pipeline, reterr);
        if (rc == 0)
                *ret_parent_data = pipeline.parent_data;
        for (size_t i = 0; i < disk->reader_count; i++)
                pthread_mutex_destroy(&reader_locks[i]);
        plan_clear(&pipeline.plan);
        source_extents_clear(&pipeline.source_extents);
        parent_extents_clear(&pipeline.parent.extents);
        return rc;
}
