#include "restore/target.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "restore/target-kinds.h"
#include "util/bytes.h"

#define ZEROES_SIZE (256u << 10) /* written where the target cannot be told to zero */
#define GRAIN_MAX (64u << 10)

static const unsigned char zero_bytes[ZEROES_SIZE] __attribute__((aligned(4096)));

/* The first that claims it: the last one claims all that is left. */
static const TargetOps *const kinds[] = {
        &target_nbd_ops, &target_imageio_ops, &target_device_ops, &target_qcow2_ops, &target_file_ops,
};

struct TargetConnections {
        pthread_mutex_t lock; /* of what follows */
        pthread_cond_t back;
        void **idle;
        size_t idle_count, count, max; /* count: idle, in use or being made */
};

static TargetConnections *connections_free(DiskTarget *target) {
        TargetConnections *connections = target->connections;

        if (!connections)
                return NULL;
        assert(connections->idle_count == connections->count);
        while (connections->idle_count > 0)
                target->ops->disconnect(target, connections->idle[--connections->idle_count]);
        pthread_cond_destroy(&connections->back);
        pthread_mutex_destroy(&connections->lock);
        free(connections->idle);
        free(connections);
        return NULL;
}

static int connections_new(DiskTarget *target, Reason *reterr) {
        TargetConnections *connections = calloc(1, sizeof *connections);

        if (!connections)
                return fail_oom(reterr);
        pthread_mutex_init(&connections->lock, NULL);
        pthread_cond_init(&connections->back, NULL);
        target->connections = connections;
        connections->max = target->connections_max;
        connections->idle = calloc(target->connections_max, sizeof *connections->idle);
        return connections->idle ? 0 : fail_oom(reterr);
}

static void give_back(DiskTarget *target, void *connection) {
        TargetConnections *connections = target->connections;

        if (!connections)
                return;
        pthread_mutex_lock(&connections->lock);
        connections->idle[connections->idle_count++] = connection;
        pthread_cond_signal(&connections->back);
        pthread_mutex_unlock(&connections->lock);
}

/* Makes one more; with the lock held, but for that. Where the server lets nobody in beside those that are there, they will
 * do: 1, and it is to be asked for again. */
static int add(DiskTarget *target, void **ret, Reason *reterr) {
        TargetConnections *connections = target->connections;
        Reason reason = REASON_INIT;
        int rc;

        connections->count++;
        pthread_mutex_unlock(&connections->lock);
        rc = target->ops->connect(target, ret, &reason);
        pthread_mutex_lock(&connections->lock);
        if (rc == 0)
                return 0;
        connections->count--;
        pthread_cond_broadcast(&connections->back);
        if (connections->count == 0 || rc == -ECANCELED)
                return fail(reterr, rc, "%s", reason.text);
        connections->max = connections->count;
        return 1;
}

/* An idle one, a new one, or whichever comes back first. */
static int take(DiskTarget *target, void **ret, Reason *reterr) {
        TargetConnections *connections = target->connections;
        int rc = 1;

        *ret = NULL;
        if (!connections)
                return 0;
        pthread_mutex_lock(&connections->lock);
        while (rc > 0) {
                if (connections->idle_count > 0) {
                        *ret = connections->idle[--connections->idle_count];
                        rc = 0;
                } else if (connections->count < connections->max) {
                        rc = add(target, ret, reterr);
                } else {
                        pthread_cond_wait(&connections->back, &connections->lock);
                }
        }
        pthread_mutex_unlock(&connections->lock);
        return rc;
}

int target_format(const char *name, const char *said, const char **ret, Reason *reterr) {
        size_t length = strlen(name);

        if (!said)
                said = length > 6 && strcmp(name + length - 6, ".qcow2") == 0 ? "qcow2" : "raw";
        if (strcmp(said, "raw") != 0 && strcmp(said, "qcow2") != 0)
                return fail(reterr, -EINVAL, "a disk is restored as raw or qcow2, not as %s", said);
        *ret = strcmp(said, "raw") == 0 ? "raw" : "qcow2";
        return 0;
}

static int check_opened(const DiskTarget *target, Reason *reterr) {
        assert(target->shown && is_power_of_2(target->grain) && target->grain >= TARGET_GRAIN);
        if (target->grain > GRAIN_MAX)
                return fail(reterr, -EINVAL, "%s wants to be written in pieces of %u bytes", target->shown, target->grain);
        if (target->size < target->disk_size)
                return fail(reterr, -ENOSPC, "%s has %llu bytes, which is less than the disk's %llu", target->shown,
                            (unsigned long long) target->size, (unsigned long long) target->disk_size);
        return 0;
}

static int open_kind(const TargetOps *kind, const TargetRequest *request, DiskTarget **ret, Reason *reterr) {
        DiskTarget *target = calloc(1, kind->size);
        int rc;

        if (!target)
                return fail_oom(reterr);
        target->ops = kind;
        target->disk_size = request->size;
        target->cancel = request->cancel;
        target->grain = TARGET_GRAIN;
        rc = kind->open(target, request, reterr);
        if (rc == 0)
                rc = check_opened(target, reterr);
        if (rc == 0 && kind->connect)
                rc = connections_new(target, reterr);
        if (rc < 0) {
                disk_target_close(target, target->found);
                return rc;
        }
        *ret = target;
        return 0;
}

int disk_target_open(const TargetRequest *request, DiskTarget **ret, Reason *reterr) {
        TargetRequest settled = *request;
        size_t kind = 0;
        int rc;

        if (!*request->name)
                return fail(reterr, -EINVAL, "a target has a name");
        if (request->size > INT64_MAX - GRAIN_MAX)
                return fail(reterr, -EFBIG, "a disk of %llu bytes is more than can be", (unsigned long long) request->size);
        rc = target_format(request->name, request->format, &settled.format, reterr);
        if (rc < 0)
                return rc;
        while (!kinds[kind]->claims(&settled))
                kind++;
        if (kinds[kind]->raw_only && strcmp(settled.format, "raw") != 0)
                return fail(reterr, -EINVAL, "%s is written raw, not as %s", kinds[kind]->raw_only, settled.format);
        return open_kind(kinds[kind], &settled, ret, reterr);
}

DiskTarget *disk_target_close(DiskTarget *target, bool keep) {
        if (!target)
                return NULL;
        connections_free(target);
        free(target->shown);
        free(target->unfinished);
        target->ops->close(target, keep);
        return NULL;
}

int disk_target_clear(DiskTarget *target, Reason *reterr) {
        int rc;

        assert(!target->in_place);
        if (target->clean)
                return 0;
        target->connections = connections_free(target); /* they may be to what is made anew */
        rc = target->ops->clear(target, reterr);
        if (rc == 0 && target->ops->connect)
                rc = connections_new(target, reterr);
        if (rc == 0)
                target->clean = true;
        return rc;
}

static void check_range(const DiskTarget *target, uint64_t length, uint64_t offset) {
        assert(offset % target->grain == 0 && offset <= target->size && length <= target->size - offset);
        assert((offset + length) % target->grain == 0 || offset + length == target->disk_size ||
               offset + length == target->size);
}

/* The last bytes of a disk that are less than a grain, in a target that goes on behind them. */
static int move_tail(DiskTarget *target, void *connection, void *into, const void *from, size_t length, uint64_t offset,
                     Reason *reterr) {
        CLEANUP(freep) unsigned char *whole = aligned_alloc(TARGET_GRAIN, target->grain);
        size_t whole_length = min_u64(target->grain, target->size - offset);
        int rc;

        if (!whole)
                return fail_oom(reterr);
        if (into) {
                rc = target->ops->read(target, connection, whole, whole_length, offset, reterr);
                if (rc == 0)
                        memcpy(into, whole, length);
                return rc;
        }
        memset(whole, 0, target->grain);
        memcpy(whole, from, length);
        return target->ops->write(target, connection, whole, whole_length, offset, reterr);
}

/* Reads into one buffer, or, where that is NULL, writes from the other. */
static int move(DiskTarget *target, void *connection, unsigned char *into, const unsigned char *from, size_t length,
                uint64_t offset, Reason *reterr) {
        size_t tail = target->size > target->disk_size ? (offset + length) % target->grain : 0, whole = length - tail;
        int rc = 0;

        if (whole > 0 && into)
                rc = target->ops->read(target, connection, into, whole, offset, reterr);
        else if (whole > 0)
                rc = target->ops->write(target, connection, from, whole, offset, reterr);
        if (rc == 0 && tail > 0)
                rc = move_tail(target, connection, into ? into + whole : NULL, from ? from + whole : NULL, tail,
                               offset + whole, reterr);
        return rc;
}

static int take_and_move(DiskTarget *target, void *into, const void *from, size_t length, uint64_t offset, Reason *reterr) {
        void *connection;
        int rc;

        check_range(target, length, offset);
        rc = take(target, &connection, reterr);
        if (rc < 0)
                return rc;
        rc = move(target, connection, into, from, length, offset, reterr);
        give_back(target, connection);
        return rc;
}

int disk_target_write(DiskTarget *target, const void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        return take_and_move(target, NULL, buffer, length, offset, reterr);
}

int disk_target_read(DiskTarget *target, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        return take_and_move(target, buffer, NULL, length, offset, reterr);
}

static int write_zeroes(DiskTarget *target, void *connection, uint64_t length, uint64_t offset, Reason *reterr) {
        int rc = 0;

        while (rc == 0 && length > 0) {
                size_t part = min_u64(length, ZEROES_SIZE);

                if (target->cancel && atomic_load(target->cancel))
                        return fail(reterr, -ECANCELED, "interrupted");
                rc = move(target, connection, NULL, zero_bytes, part, offset, reterr);
                offset += part;
                length -= part;
        }
        return rc;
}

int disk_target_zero(DiskTarget *target, uint64_t length, uint64_t offset, Reason *reterr) {
        uint64_t end = min_u64(round_up(offset + length, target->grain), target->size);
        void *connection;
        int rc;

        check_range(target, length, offset);
        rc = take(target, &connection, reterr);
        if (rc < 0)
                return rc;
        rc = target->ops->zero(target, connection, end - offset, offset, reterr);
        if (rc == -EOPNOTSUPP)
                rc = write_zeroes(target, connection, length, offset, reterr);
        give_back(target, connection);
        return rc;
}

uint64_t disk_target_zeroes(DiskTarget *target, uint64_t length, uint64_t offset) {
        uint64_t known = 0;
        void *connection;

        if (target->ops->zeroes && take(target, &connection, NULL) == 0) {
                known = target->ops->zeroes(target, connection, length, offset);
                give_back(target, connection);
        }
        return min_u64(known, length);
}

int disk_target_reserve(DiskTarget *target, uint64_t length, uint64_t offset) {
        uint64_t start = round_up(offset, target->grain), end = round_down(offset + length, target->grain);

        return start < end ? target->ops->reserve(target, end - start, start) : 0;
}

int disk_target_sync(DiskTarget *target, Reason *reterr) {
        void *connection;
        int rc;

        rc = take(target, &connection, reterr);
        if (rc < 0)
                return rc;
        rc = target->ops->sync(target, connection, reterr);
        give_back(target, connection);
        return rc;
}

int disk_target_finish(DiskTarget *target, Reason *reterr) {
        target->connections = connections_free(target);
        return target->ops->finish ? target->ops->finish(target, reterr) : 0;
}
