/* tests/unit/chain-model.h - points of one disk, written to a repository, and what each byte of them must be. */
#pragma once

#include <errno.h>

#include "chain/chain.h"
#include "layer-model.h"
#include "repository-fixture.h"

typedef enum ByteKind {
        BYTE_LOST, /* unreadable when captured, or nobody's */
        BYTE_ZERO,
        BYTE_DATA,
} ByteKind;

#define NOBODY 255 /* as a point */

typedef struct PointModel {
        char name[POINT_NAME_MAX];
        uint64_t size;
        uint8_t *kinds, *values, *points; /* of each byte */
} PointModel;

static inline void point_model_name(unsigned index, char name[static POINT_NAME_MAX]) {
        snprintf(name, POINT_NAME_MAX, "2026-11-%02uT%02u%02u%02uZ", 1 + index / 86400, index / 3600 % 24, index / 60 % 60,
                 index % 60);
}

/* What a point is before its layers: its parent, as far as that goes; nobody's behind its end, and without one. */
static inline PointModel point_model_new(unsigned index, uint64_t size, const PointModel *parent) {
        PointModel point = { .size = size };
        uint64_t shared = parent ? min_u64(size, parent->size) : 0;

        point_model_name(index, point.name);
        point.kinds = calloc(size + 1, 1);
        point.values = calloc(size + 1, 1);
        point.points = malloc(size + 1);
        CHECK(point.kinds && point.values && point.points);
        memset(point.points, NOBODY, size);
        if (parent) {
                memcpy(point.kinds, parent->kinds, shared);
                memcpy(point.values, parent->values, shared);
                memcpy(point.points, parent->points, shared);
        }
        return point;
}

static inline void point_model_clear(PointModel *point) {
        free(point->kinds);
        free(point->values);
        free(point->points);
}

static inline void point_model_apply(PointModel *point, const LayerModel *layer, unsigned index) {
        static const uint8_t kinds[] = {[MODEL_DATA] = BYTE_DATA, [MODEL_ZERO] = BYTE_ZERO, [MODEL_UNREADABLE] = BYTE_LOST};

        for (uint64_t block = 0; block < layer->count; block++) {
                uint64_t start = block * layer->block_size, length = layer_model_length(layer, block);
                ModelState state = layer->states[block];

                if (state == MODEL_ABSENT)
                        continue;
                memset(point->kinds + start, kinds[state], length);
                memset(point->points + start, (int) index, length);
                if (state == MODEL_DATA)
                        memcpy(point->values + start, layer->bytes + start, length);
                else
                        memset(point->values + start, 0, length);
        }
}

/* The directory that a point's layers lie in. */
static inline void make_capture_directory(Fixture *f, const Manifest *manifest) {
        Reason reason = REASON_INIT;
        char path[128];
        int rc;

        rc = make_directory(vm_fd(f->vm), "data", &reason);
        CHECK(rc == 0 || rc == -EEXIST);
        snprintf(path, sizeof path, "data/%s", manifest->capture);
        CHECK_INT(make_directory(vm_fd(f->vm), path, &reason), 0);
}

/* A point with one disk, vda, and these layers, newest first; kind is the disk's, the point has the parent's name. */
static inline void write_point(Fixture *f, const char *name, const char *parent, unsigned serial, PointKind kind,
                               uint64_t size, const LayerModel *layers, size_t count) {
        static const char *const disks[] = { "vda" };
        CLEANUP(manifest_unrefp) Manifest *manifest = sample_manifest(name, parent, serial, disks, 1);
        ManifestDisk *disk = &manifest->disks[0];
        Reason reason = REASON_INIT;

        make_capture_directory(f, manifest);
        disk->size = disk->allocated = size;
        disk->kind = kind;
        free(disk->layers[0].format);
        free(disk->layers[0].file);
        free(disk->layers);
        disk->layers = calloc(count + 1, sizeof *disk->layers);
        disk->layer_count = count;
        for (size_t i = 0; i < count; i++) {
                LayerTotals totals;
                char path[256];

                CHECK(asprintf(&disk->layers[i].file, "vda-%zu.layer", i) > 0);
                snprintf(path, sizeof path, "data/%s/%s", manifest->capture, disk->layers[i].file);
                totals = layer_model_write(&layers[i], vm_fd(f->vm), path);
                disk->layers[i].format = strdup("native");
                disk->layers[i].length = totals.length;
                disk->layers[i].seal = totals.seal;
        }
        CHECK_INT(manifest_commit(f->vm, manifest, &reason), 0);
}
