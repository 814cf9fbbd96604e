#include "formats/qcow2/layer-reader.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <zstd.h>

#include "codec/codec.h"
#include "codec/deflate.h"
#include "formats/found.h"
#include "formats/qcow2/leaf.h"
#include "formats/qcow2/member.h"
#include "formats/qcow2/neighbour.h"
#include "formats/qcow2/snapshot.h"
#include "util/bytes.h"
#include "util/scratch.h"

#define CLUSTER_ITEMS (UINT64_C(1) << 63) /* cache items of clusters have this bit; those of leaves are their numbers */

typedef struct Qcow2Layer {
        Layer layer;
        ByteStore *image, *data; /* where guest data is, the image itself but for data files */
        Cache *memory;
        uint64_t owner; /* of what is in memory */
        Qcow2Header header;
        Qcow2Tables tables;
        uint64_t parent_size;
        uint64_t span; /* of a leaf */
} Qcow2Layer;

static int load_leaf(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        const Qcow2Layer *qcow2 = context;
        Leaf *leaf;
        int rc = leaf_load(&qcow2->tables, key.item, &leaf, ret_cost, reterr);

        if (rc >= 0)
                *ret = leaf;
        return rc;
}

static const CacheLoader leaf_loader = { load_leaf, free };

static int get_leaf(const Qcow2Layer *qcow2, uint64_t offset, CacheEntry **ret, Reason *reterr) {
        CacheKey key = { qcow2->owner, offset / qcow2->span };
        int rc = cache_get(qcow2->memory, key, &leaf_loader, (void *) qcow2, ret, reterr);

        if (rc >= 0 && ((const Leaf *) cache_value(*ret))->damaged)
                cache_drop(*ret);
        return rc;
}

/* What is absent past the parent's end reads as zeroes. */
static int add_absent(const Qcow2Layer *qcow2, uint64_t from, uint64_t to, ExtentMap *map) {
        from = max_u64(from, qcow2->parent_size);
        return from < to ? extent_map_add(map, from, to - from, EXTENT_ZERO) : 0;
}

static int add_run(const Qcow2Layer *qcow2, RunKind kind, uint64_t from, uint64_t to, ExtentMap *map) {
        static const ExtentState states[] = {
                [RUN_ZERO] = EXTENT_ZERO,
                [RUN_DATA] = EXTENT_DATA,
                [RUN_COMPRESSED] = EXTENT_DATA,
                [RUN_DAMAGED] = EXTENT_UNREADABLE,
        };

        if (kind == RUN_ABSENT)
                return add_absent(qcow2, from, to, map);
        return extent_map_add(map, from, to - from, states[kind]);
}

static int qcow2_extents(Layer *layer, uint64_t start, uint64_t length, ExtentMap *map, Reason *reterr) {
        const Qcow2Layer *qcow2 = (const Qcow2Layer *) layer;
        uint64_t at = start, end = start + length;
        int damaged = 0;

        while (at < end) {
                CLEANUP(cache_releasep) CacheEntry *cached = NULL;
                uint64_t leaf_end = min_u64(round_down(at, qcow2->span) + qcow2->span, end);
                const Leaf *leaf;
                int rc = get_leaf(qcow2, at, &cached, reterr);

                if (rc == -ENOMEM)
                        return rc;
                if (rc < 0) {
                        damaged = 1;
                        if (extent_map_add(map, at, leaf_end - at, EXTENT_UNREADABLE) < 0)
                                return fail_oom(reterr);
                        at = leaf_end;
                        continue;
                }
                leaf = cache_value(cached);
                for (uint32_t i = leaf_find(leaf, at); at < leaf_end; i++) {
                        uint64_t run_end = min_u64(leaf_run_start(leaf, i + 1), leaf_end);

                        damaged |= leaf->runs[i].kind == RUN_DAMAGED;
                        if (add_run(qcow2, leaf->runs[i].kind, at, run_end, map) < 0)
                                return fail_oom(reterr);
                        at = run_end;
                }
        }
        return damaged;
}

static int damaged_at(const Qcow2Layer *qcow2, uint64_t offset, const char *words, Reason *reterr) {
        return fail(reterr, -EIO, "%s is damaged: at %" PRIu64 " of the disk: %s", byte_store_name(qcow2->image), offset,
                    words);
}

/* A whole cluster, decompressed into to. */
static int unpack_cluster(const Qcow2Layer *qcow2, const Run *run, uint64_t offset, void *to, Reason *reterr) {
        size_t size = (size_t) 1 << qcow2->header.cluster_bits, length = run->length;
        unsigned char *stored = scratch_get(SCRATCH_STORED, length);
        int rc;

        if (!stored)
                return fail_oom(reterr);
        rc = byte_store_read(qcow2->image, stored, length, run->host, reterr);
        if (rc < 0)
                return rc;
        if (qcow2->header.zstd) {
                /* Behind the frame comes what follows in its last sector. */
                size_t frame = ZSTD_findFrameCompressedSize(stored, length);

                rc = ZSTD_isError(frame) ? -EBADMSG : codec_by_name("zstd")->decompress(stored, frame, to, size);
        } else
                rc = deflate_decompress(stored, length, to, size);
        if (rc == -ENOMEM)
                return fail_oom(reterr);
        return rc < 0 ? damaged_at(qcow2, offset, "its cluster cannot be decompressed", reterr) : 0;
}

typedef struct ClusterRequest {
        const Qcow2Layer *qcow2;
        const Run *run;
        uint64_t offset; /* of the cluster on the disk */
} ClusterRequest;

static int load_cluster(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        const ClusterRequest *request = context;
        size_t size = (size_t) 1 << request->qcow2->header.cluster_bits;
        CLEANUP(freep) unsigned char *cluster = malloc(size);
        int rc;

        if (!cluster)
                return fail_oom(reterr);
        rc = unpack_cluster(request->qcow2, request->run, request->offset, cluster, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(cluster);
        *ret_cost = size;
        return 0;
}

static const CacheLoader cluster_loader = { load_cluster, free };

/* Of one compressed cluster; by way of the cache where only a part is wanted. */
static int read_compressed(const Qcow2Layer *qcow2, const Run *run, uint64_t offset, uint64_t length, void *to,
                           Reason *reterr) {
        uint64_t size = UINT64_C(1) << qcow2->header.cluster_bits, skip = offset % size;
        ClusterRequest request = { qcow2, run, offset - skip };
        CacheKey key = { qcow2->owner, CLUSTER_ITEMS | offset / size };
        CLEANUP(cache_releasep) CacheEntry *cached = NULL;
        int rc;

        if (length == size)
                return unpack_cluster(qcow2, run, offset, to, reterr);
        rc = cache_get(qcow2->memory, key, &cluster_loader, &request, &cached, reterr);
        if (rc < 0)
                return rc;
        memcpy(to, (const unsigned char *) cache_value(cached) + skip, length);
        return 0;
}

/* [offset, offset + length) within run number i. */
static int read_run(const Qcow2Layer *qcow2, const Leaf *leaf, uint32_t i, uint64_t offset, uint64_t length, void *to,
                    Reason *reterr) {
        const Run *run = &leaf->runs[i];

        switch ((RunKind) run->kind) {
        case RUN_DATA:
                return byte_store_read(qcow2->data, to, length, run->host + (offset - leaf_run_start(leaf, i)), reterr);
        case RUN_COMPRESSED:
                return read_compressed(qcow2, run, offset, length, to, reterr);
        case RUN_DAMAGED:
                return damaged_at(qcow2, offset, leaf_damage(run), reterr);
        case RUN_ABSENT:
        case RUN_ZERO:
                break;
        }
        return fail(reterr, -EIO, "%s has no data at %" PRIu64 " of the disk", byte_store_name(qcow2->image), offset);
}

static int qcow2_read(Layer *layer, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        const Qcow2Layer *qcow2 = (const Qcow2Layer *) layer;
        uint64_t at = offset, end = offset + length;

        while (at < end) {
                CLEANUP(cache_releasep) CacheEntry *cached = NULL;
                uint64_t leaf_end = min_u64(round_down(at, qcow2->span) + qcow2->span, end);
                const Leaf *leaf;
                int rc = get_leaf(qcow2, at, &cached, reterr);

                if (rc < 0)
                        return rc;
                leaf = cache_value(cached);
                for (uint32_t i = leaf_find(leaf, at); at < leaf_end; i++) {
                        uint64_t run_end = min_u64(leaf_run_start(leaf, i + 1), leaf_end);

                        rc = read_run(qcow2, leaf, i, at, run_end - at, (unsigned char *) buffer + (at - offset), reterr);
                        if (rc < 0)
                                return rc;
                        at = run_end;
                }
        }
        return 0;
}

static void qcow2_free(Layer *layer) {
        Qcow2Layer *qcow2 = (Qcow2Layer *) layer;

        cache_forget(qcow2->memory, qcow2->owner);
        if (qcow2->data != qcow2->image)
                byte_store_free(qcow2->data);
        byte_store_free(qcow2->image);
        free(qcow2);
}

static const LayerOps qcow2_ops = { .extents = qcow2_extents, .read = qcow2_read, .free = qcow2_free };

static void qcow2_freep(Qcow2Layer **qcow2) {
        if (*qcow2)
                qcow2_free(&(*qcow2)->layer);
}

/* The state that the member names. */
static int find_state(const Qcow2Layer *qcow2, const Qcow2Member *member, Qcow2State *ret, Reason *reterr) {
        CLEANUP(qcow2_snapshots_clear) Qcow2Snapshots snapshots = { 0 };
        const Qcow2Snapshot *found = NULL;
        Reason reason = REASON_INIT;
        int rc;

        if (!member->snapshot) {
                *ret = qcow2->header.active;
                return 0;
        }
        rc = qcow2_snapshots_load(qcow2->image, &qcow2->header, &snapshots, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; !found && i < snapshots.count; i++)
                if (strcmp(snapshots.items[i].id, member->snapshot) == 0)
                        found = &snapshots.items[i];
        if (!found)
                return fail(reterr, -EIO, "%s has no snapshot %s", byte_store_name(qcow2->image), member->snapshot);
        rc = qcow2_snapshot_check(&qcow2->header, found, byte_store_size(qcow2->image), &reason);
        if (rc < 0)
                return fail(reterr, rc, "%s is damaged: %s", byte_store_name(qcow2->image), reason.text);
        *ret = found->state;
        return 0;
}

static int open_data(Qcow2Layer *qcow2, LayerStore *store, Reason *reterr) {
        CLEANUP(neighbour_clear) Neighbour neighbour = { 0 };
        const char *image = byte_store_name(qcow2->image);
        Reason reason = REASON_INIT;
        int rc;

        if (!qcow2->header.has_data_file) {
                qcow2->data = qcow2->image;
                return 0;
        }
        if (!*qcow2->header.data_file)
                return fail(reterr, -ENOTSUP, "%s has its data in a file that it does not name", image);
        rc = neighbour_find(layer_store_root(store), image, qcow2->header.data_file, &neighbour, &reason);
        if (rc < 0)
                return fail(reterr, rc == -ENOMEM ? rc : -EIO, "%s: its data file %s %s", image, qcow2->header.data_file,
                            reason.text);
        return file_store_open_found(layer_store_root(store), neighbour.path, found_seal(&neighbour.st),
                                     layer_store_files(store), &qcow2->data, reterr);
}

int qcow2_layer_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr) {
        CLEANUP(qcow2_freep) Qcow2Layer *qcow2 = NULL;
        Qcow2Member member;
        ByteStore *image;
        int rc;

        rc = qcow2_member_parse(location->member, &member, reterr);
        if (rc >= 0)
                rc = layer_store_open_file(store, location, &image, reterr);
        if (rc < 0)
                return rc;
        qcow2 = calloc(1, sizeof *qcow2);
        if (!qcow2) {
                byte_store_free(image);
                return fail_oom(reterr);
        }
        qcow2->layer.ops = &qcow2_ops;
        qcow2->image = image;
        qcow2->memory = layer_store_memory(store);
        qcow2->owner = cache_new_owner();
        rc = qcow2_header_load(image, &qcow2->header, reterr);
        if (rc == 0)
                return fail(reterr, -EBADMSG, "%s is no qcow2 image", location->path);
        if (rc > 0)
                rc = open_data(qcow2, store, reterr);
        if (rc >= 0)
                rc = find_state(qcow2, &member, &qcow2->tables.state, reterr);
        if (rc < 0)
                return rc;
        qcow2->tables.header = &qcow2->header;
        qcow2->tables.image = image;
        qcow2->tables.data_length = byte_store_size(qcow2->data);
        qcow2->parent_size = member.parent_size;
        qcow2->span = leaf_span(&qcow2->header);
        qcow2->layer.disk_size = qcow2->tables.state.disk_size;
        *ret = &STEAL_PTR(qcow2)->layer;
        return 0;
}
