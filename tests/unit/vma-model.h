/* tests/unit/vma-model.h - makes VMA archives in memory: in every legal shape, and then wrong in one place. */
#pragma once

#include <nettle/md5.h>

#include "formats/found.h"
#include "formats/layer.h"
#include "formats/vma/layout.h"
#include "random.h"
#include "temporary.h"
#include "util/bytes.h"
#include "util/io.h"

#define MODEL_DEVICES_MAX 4
#define MODEL_CONFIG "name: web1\nsmbios1: uuid=5f0c2a5e-1111-4222-8333-444455556666\n"

typedef struct ModelDevice {
        const char *name;
        uint64_t size;
        uint8_t *bytes; /* whole blocks, zeroes behind the end */
} ModelDevice;

typedef struct VmaModel {
        ModelDevice devices[MODEL_DEVICES_MAX + 1]; /* from 1 on */
        unsigned device_count;
        unsigned entries; /* in an extent */
        uint8_t *bytes;   /* the archive */
        size_t length, capacity;
        uint32_t header_size;
        size_t first_extent_length;
        int64_t lost;     /* (device << 32 | cluster) of one that is left out; -1: none */
        bool in_order;
} VmaModel;

static inline void vma_model_md5(uint8_t *bytes, size_t length, size_t at) {
        struct md5_ctx context;

        memset(bytes + at, 0, 16);
        md5_init(&context);
        md5_update(&context, length, bytes);
        md5_digest(&context, 16, bytes + at);
}

static inline uint8_t *vma_model_grow(VmaModel *model, size_t more) {
        /* Twice as much each time: sanitizers copy all with each realloc(). */
        if (model->capacity < model->length + more) {
                model->capacity = 2 * (model->length + more);
                model->bytes = realloc(model->bytes, model->capacity);
                CHECK(model->bytes);
        }
        memset(model->bytes + model->length, 0, more);
        model->length += more;
        return model->bytes + model->length - more;
}

static inline uint32_t vma_model_blob(VmaModel *model, const void *data, size_t length) {
        uint32_t at = (uint32_t) model->length - VMA_HEADER_SIZE;
        uint8_t *blob = vma_model_grow(model, 2 + length);

        store_le16(blob, (uint16_t) length);
        memcpy(blob + 2, data, length);
        return at;
}

/* Random content: blocks of data and of zeroes. */
static inline void vma_model_add_device(VmaModel *model, const char *name, uint64_t size) {
        ModelDevice *device = &model->devices[++model->device_count];
        size_t length = round_up(size, VMA_CLUSTER_SIZE);

        *device = (ModelDevice) { name, size, calloc(length, 1) };
        for (size_t at = 0; at < size;) {
                size_t run = min_u64((1 + random_below(20)) * VMA_BLOCK_SIZE, length - at);

                if (random_below(2))
                        random_bytes(device->bytes + at, min_u64(run, size - min_u64(at, size)));
                at += run;
        }
}

static inline void vma_model_header(VmaModel *model) {
        uint32_t names[MODEL_DEVICES_MAX + 1], config_name, config_data, used;
        uint8_t *header = vma_model_grow(model, VMA_HEADER_SIZE + 1);

        for (unsigned i = 1; i <= model->device_count; i++)
                names[i] = vma_model_blob(model, model->devices[i].name, strlen(model->devices[i].name) + 1);
        config_name = vma_model_blob(model, "qemu-server.conf", sizeof "qemu-server.conf");
        config_data = vma_model_blob(model, MODEL_CONFIG, sizeof MODEL_CONFIG - 1);
        used = (uint32_t) model->length - VMA_HEADER_SIZE;
        vma_model_grow(model, round_up(model->length, 512) - model->length);
        header = model->bytes;
        memcpy(header, VMA_MAGIC, 4);
        store_be32(header + 4, 1);
        memset(header + 8, 0x5a, 16);
        store_be64(header + 24, 1700000000);
        store_be32(header + 48, VMA_HEADER_SIZE);
        store_be32(header + 52, used);
        store_be32(header + 56, (uint32_t) model->length);
        store_be32(header + VMA_CONFIG_NAMES, config_name);
        store_be32(header + VMA_CONFIG_DATA, config_data);
        for (unsigned i = 1; i <= model->device_count; i++) {
                store_be32(header + VMA_DEVICES + i * VMA_DEVICE_SIZE, names[i]);
                store_be64(header + VMA_DEVICES + i * VMA_DEVICE_SIZE + 8, model->devices[i].size);
        }
        model->header_size = (uint32_t) model->length;
        vma_model_md5(header, model->length, 32);
}

/* All clusters, as device << 32 | number, shuffled unless in order. */
static inline uint64_t *vma_model_clusters(const VmaModel *model, size_t *ret_count) {
        uint64_t *clusters;
        size_t room = 0, count = 0;

        for (unsigned i = 1; i <= model->device_count; i++)
                room += divide_up(model->devices[i].size, VMA_CLUSTER_SIZE);
        clusters = calloc(room + 1, sizeof *clusters);
        CHECK(clusters);
        for (unsigned i = 1; i <= model->device_count; i++)
                for (uint64_t n = 0; n < divide_up(model->devices[i].size, VMA_CLUSTER_SIZE); n++) {
                        clusters[count] = (uint64_t) i << 32 | n;
                        count += (int64_t) clusters[count] != model->lost;
                }
        for (size_t i = count; i > 1 && !model->in_order; i--) {
                size_t other = random_below(i);
                uint64_t swapped = clusters[i - 1];

                clusters[i - 1] = clusters[other];
                clusters[other] = swapped;
        }
        *ret_count = count;
        return clusters;
}

static inline void vma_model_extent(VmaModel *model, const uint64_t *clusters, size_t count) {
        size_t start = model->length;
        unsigned blocks = 0;

        vma_model_grow(model, VMA_EXTENT_HEADER_SIZE);
        for (size_t i = 0; i < count; i++) {
                const ModelDevice *device = &model->devices[clusters[i] >> 32];
                const uint8_t *bytes = device->bytes + (clusters[i] & UINT32_MAX) * VMA_CLUSTER_SIZE;
                uint64_t mask = 0;

                for (unsigned b = 0; b < VMA_CLUSTER_BLOCKS; b++)
                        if (!bytes_are_zero(bytes + b * VMA_BLOCK_SIZE, VMA_BLOCK_SIZE)) {
                                memcpy(vma_model_grow(model, VMA_BLOCK_SIZE), bytes + b * VMA_BLOCK_SIZE, VMA_BLOCK_SIZE);
                                mask |= UINT64_C(1) << b;
                                blocks++;
                        }
                store_be64(model->bytes + start + 40 + i * 8, mask << 48 | clusters[i]);
        }
        memcpy(model->bytes + start, VMA_EXTENT_MAGIC, 4);
        store_be16(model->bytes + start + 6, (uint16_t) blocks);
        memset(model->bytes + start + 8, 0x5a, 16);
        vma_model_md5(model->bytes + start, VMA_EXTENT_HEADER_SIZE, 24);
        if (start == model->header_size)
                model->first_extent_length = model->length - start;
}

static inline void vma_model_make(VmaModel *model) {
        CLEANUP(freep) uint64_t *clusters = NULL;
        size_t count;

        vma_model_header(model);
        clusters = vma_model_clusters(model, &count);
        for (size_t i = 0; i < count; i += model->entries)
                vma_model_extent(model, clusters + i, min_u64(model->entries, count - i));
}

static inline VmaModel vma_model_new(unsigned entries) {
        return (VmaModel) { .entries = entries, .lost = -1 };
}

static inline void vma_model_clear(VmaModel *model) {
        for (unsigned i = 1; i <= model->device_count; i++)
                free(model->devices[i].bytes);
        free(model->bytes);
}

static inline LayerLocation vma_model_save(const VmaModel *model, const TemporaryDirectory *directory, const char *path,
                                           const char *member) {
        CLEANUP(close_fd) int fd = openat(directory->fd, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        struct stat st;

        CHECK(fd >= 0);
        CHECK_INT(write_whole(fd, model->bytes, model->length), 0);
        CHECK_INT(fstat(fd, &st), 0);
        return (LayerLocation) { "vma", path, member, model->length, found_seal(&st) };
}
