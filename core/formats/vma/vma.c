/* core/formats/vma/vma.c - devices and files of an archive, as layers. */
#include "formats/vma/vma.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

#include "formats/vma/archive.h"
#include "util/bytes.h"

#define CLUSTERS_AT_ONCE 64 /* looked up together */

typedef struct VmaLayer {
        Layer layer;
        CacheEntry *entry; /* the archive's */
        VmaArchive *archive;
        unsigned device;
        bool whole;        /* a kept file: zeroes are data, too */
        const VmaConfig *config; /* or NULL: it is a device */
} VmaLayer;

/* The states of the blocks of one cluster, clipped to what is asked for. */
static int add_cluster(uint64_t number, const Cluster *cluster, uint64_t start, uint64_t stop, ExtentMap *map) {
        uint64_t at = number * VMA_CLUSTER_SIZE;

        for (unsigned i = 0; i < VMA_CLUSTER_BLOCKS; i++) {
                uint64_t from = max_u64(at + i * VMA_BLOCK_SIZE, start), to = min_u64(at + (i + 1) * VMA_BLOCK_SIZE, stop);
                ExtentState state = EXTENT_UNREADABLE;

                if (cluster->state == CLUSTER_FOUND)
                        state = cluster->mask & 1u << i ? EXTENT_DATA : EXTENT_ZERO;
                if (from < to && extent_map_add(map, from, to - from, state) < 0)
                        return -ENOMEM;
        }
        return 0;
}

/* The common case at once: neighbours that are wholly stored, wholly zero or lost. */
static size_t count_alike(const Cluster *clusters, size_t count) {
        size_t i = 1;

        if (clusters->state == CLUSTER_FOUND && clusters->mask != 0 && clusters->mask != UINT16_MAX)
                return 0;
        while (i < count && (clusters[i].state == CLUSTER_FOUND) == (clusters->state == CLUSTER_FOUND) &&
               (clusters->state != CLUSTER_FOUND || clusters[i].mask == clusters->mask))
                i++;
        return i;
}

static int vma_extents(Layer *layer, uint64_t start, uint64_t length, ExtentMap *map, Reason *reterr) {
        VmaLayer *vma = (VmaLayer *) layer;
        uint64_t stop = start + length, end = divide_up(stop, VMA_CLUSTER_SIZE);
        Cluster clusters[CLUSTERS_AT_ONCE];
        int lost = 0;

        if (vma->whole)
                return layer_extents_data(layer, start, length, map, reterr);
        for (uint64_t first = start / VMA_CLUSTER_SIZE; first < end;) {
                size_t count = (size_t) min_u64(end - first, CLUSTERS_AT_ONCE), alike;
                int rc = vma_archive_find(vma->archive, vma->device, first, count, clusters, reterr);

                if (rc < 0)
                        return rc;
                for (size_t i = 0; i < count; i += max_u64(alike, 1)) {
                        Cluster cluster = clusters[i];

                        alike = count_alike(&clusters[i], count - i);
                        lost |= cluster.state != CLUSTER_FOUND;
                        if (alike == 0)
                                rc = add_cluster(first + i, &cluster, start, stop, map);
                        else {
                                uint64_t from = max_u64((first + i) * VMA_CLUSTER_SIZE, start);
                                uint64_t to = min_u64((first + i + alike) * VMA_CLUSTER_SIZE, stop);
                                ExtentState state = cluster.state != CLUSTER_FOUND ? EXTENT_UNREADABLE
                                                    : cluster.mask                 ? EXTENT_DATA
                                                                                   : EXTENT_ZERO;

                                rc = extent_map_add(map, from, to - from, state);
                        }
                        if (rc < 0)
                                return fail_oom(reterr);
                }
                first += count;
        }
        return lost;
}

static int fail_lost(const VmaLayer *vma, uint64_t number, const Cluster *cluster, Reason *reterr) {
        const char *device = vma_archive_header(vma->archive)->devices[vma->device].name;
        Reason problem;

        if (cluster->state == CLUSTER_DOUBLE)
                return fail(reterr, -EIO, "%s is damaged: cluster %" PRIu64 " of %s is in it several times",
                            vma_archive_path(vma->archive), number, device);
        vma_archive_problem(vma->archive, &problem);
        return fail(reterr, -EIO, "%s: cluster %" PRIu64 " of %s is missing: %s", vma_archive_path(vma->archive), number,
                    device, problem.text);
}

/* Stored bytes that lie behind each other in the archive and belong behind each other: read at once. */
typedef struct Run {
        unsigned char *to;
        uint64_t offset;
        size_t length;
} Run;

static int read_run(const VmaLayer *vma, Run *run, Reason *reterr) {
        int rc = run->length > 0 ? vma_archive_read(vma->archive, run->to, run->length, run->offset, reterr) : 0;

        run->length = 0;
        return rc;
}

static int add_to_run(const VmaLayer *vma, Run *run, unsigned char *to, uint64_t offset, size_t length, Reason *reterr) {
        int rc = 0;

        if (run->length > 0 && (run->to + run->length != to || run->offset + run->length != offset))
                rc = read_run(vma, run, reterr);
        if (run->length == 0)
                *run = (Run) { to, offset, 0 };
        run->length += length;
        return rc;
}

/* What of [at, end) lies in one cluster. to: where at goes. */
static int read_cluster(const VmaLayer *vma, uint64_t number, const Cluster *cluster, uint64_t at, uint64_t end,
                        unsigned char *to, Run *run, Reason *reterr) {
        uint64_t start = number * VMA_CLUSTER_SIZE;
        int rc = 0;

        while (rc == 0 && at < end) {
                unsigned block = (unsigned) ((at - start) / VMA_BLOCK_SIZE);
                uint64_t next = min_u64(end, start + (block + 1) * VMA_BLOCK_SIZE);
                unsigned before = (unsigned) __builtin_popcount(cluster->mask & ((1u << block) - 1));
                uint64_t offset = cluster->offset + before * VMA_BLOCK_SIZE + (at - start) % VMA_BLOCK_SIZE;

                if (cluster->mask == UINT16_MAX)
                        next = end;
                if (cluster->mask & 1u << block)
                        rc = add_to_run(vma, run, to, offset, next - at, reterr);
                else if (vma->whole)
                        memset(to, 0, next - at);
                else
                        rc = fail(reterr, -EIO, "%s has no data at %" PRIu64 " of %s", vma_archive_path(vma->archive), at,
                                  vma_archive_header(vma->archive)->devices[vma->device].name);
                to += next - at;
                at = next;
        }
        return rc;
}

static int vma_read(Layer *layer, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        VmaLayer *vma = (VmaLayer *) layer;
        uint64_t stop = offset + length, end = divide_up(stop, VMA_CLUSTER_SIZE);
        Cluster clusters[CLUSTERS_AT_ONCE];
        Run run = { 0 };

        if (vma->config) {
                memcpy(buffer, (const char *) vma->config->data + offset, length);
                return 0;
        }
        for (uint64_t first = offset / VMA_CLUSTER_SIZE; first < end;) {
                size_t count = (size_t) min_u64(end - first, CLUSTERS_AT_ONCE);
                int rc = vma_archive_await(vma->archive, vma->device, first, count, clusters, reterr);

                for (size_t i = 0; rc == 0 && i < count; i++) {
                        uint64_t from = max_u64((first + i) * VMA_CLUSTER_SIZE, offset);
                        uint64_t to = min_u64((first + i + 1) * VMA_CLUSTER_SIZE, stop);

                        rc = clusters[i].state == CLUSTER_FOUND
                                     ? read_cluster(vma, first + i, &clusters[i], from, to,
                                                    (unsigned char *) buffer + (from - offset), &run, reterr)
                                     : fail_lost(vma, first + i, &clusters[i], reterr);
                }
                if (rc < 0)
                        return rc;
                first += count;
        }
        return read_run(vma, &run, reterr);
}

static void vma_free(Layer *layer) {
        VmaLayer *vma = (VmaLayer *) layer;

        cache_release(vma->entry);
        free(vma);
}

static const LayerOps vma_ops = { .extents = vma_extents, .read = vma_read, .free = vma_free };

/* The number behind a word. */
static bool take_number(const char *member, const char *word, unsigned limit, unsigned *ret) {
        size_t length = strlen(word);
        unsigned long number;
        char *end;

        if (strncmp(member, word, length) != 0 || member[length] < '0' || member[length] > '9')
                return false;
        number = strtoul(member + length, &end, 10);
        *ret = (unsigned) number;
        return !*end && number < limit;
}

static int choose_member(VmaLayer *vma, const char *member, Reason *reterr) {
        const VmaHeader *header = vma_archive_header(vma->archive);
        unsigned number;

        if (member && take_number(member, VMA_MEMBER_DEVICE, VMA_DEVICE_COUNT, &number) && header->devices[number].name) {
                vma->device = number;
                vma->whole = header->devices[number].ram;
                vma->layer.disk_size = header->devices[number].size;
                return 0;
        }
        if (member && take_number(member, VMA_MEMBER_CONFIG, (unsigned) header->config_count, &number)) {
                vma->config = &header->configs[number];
                vma->whole = true;
                vma->layer.disk_size = vma->config->length;
                return 0;
        }
        return fail(reterr, -EBADMSG, "%s has no %s", vma_archive_path(vma->archive), member ?: "such member");
}

static int vma_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr) {
        CacheEntry *entry;
        VmaLayer *vma;
        int rc;

        rc = vma_archive_open(store, location, &entry, reterr);
        if (rc < 0)
                return rc;
        vma = calloc(1, sizeof *vma);
        if (!vma) {
                cache_release(entry);
                return fail_oom(reterr);
        }
        vma->layer.ops = &vma_ops;
        vma->entry = entry;
        vma->archive = cache_value(entry);
        rc = choose_member(vma, location->member, reterr);
        if (rc < 0) {
                vma_free(&vma->layer);
                return rc;
        }
        *ret = &vma->layer;
        return 0;
}

const Format vma_format = { .name = "vma", .open = vma_open, .find = vma_find, .progress = vma_archive_progress };
