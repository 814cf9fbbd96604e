/* tests/unit/layer-model.h - a layer as a plain array of blocks, to write as a native layer and to compare with. */
#pragma once

#include "formats/layer.h"
#include "formats/native/layer-writer.h"
#include "random.h"
#include "temporary.h"
#include "util/bytes.h"

typedef enum ModelState {
        MODEL_ABSENT,
        MODEL_DATA,
        MODEL_ZERO,
        MODEL_UNREADABLE,
} ModelState;

typedef struct LayerModel {
        uint64_t disk_size;
        uint32_t block_size;
        const Codec *codec;
        uint64_t count; /* blocks */
        uint8_t *states;
        uint8_t *bytes; /* of the whole disk; only those of data blocks mean anything */
} LayerModel;

static inline LayerModel layer_model_new(uint64_t disk_size, uint32_t block_size, const char *codec) {
        LayerModel model = { disk_size, block_size, codec_by_name(codec), divide_up(disk_size, block_size), NULL, NULL };

        model.states = calloc(model.count + 1, 1);
        model.bytes = calloc(disk_size + 1, 1);
        CHECK(model.states && model.bytes && model.codec);
        return model;
}

static inline void layer_model_clear(LayerModel *model) {
        free(model->states);
        free(model->bytes);
}

static inline uint64_t layer_model_length(const LayerModel *model, uint64_t block) {
        return min_u64(model->block_size, model->disk_size - block * model->block_size);
}

/* Runs of random states; of 10 blocks, about this many are absent. */
static inline void layer_model_fill(LayerModel *model, unsigned absent) {
        for (uint64_t block = 0; block < model->count;) {
                uint64_t run = 1 + random_below(random_below(4) ? 3 : 40);
                ModelState state = random_below(10) < absent ? MODEL_ABSENT
                                   : random_below(8) == 0    ? MODEL_UNREADABLE
                                   : random_below(3) == 0    ? MODEL_ZERO
                                                             : MODEL_DATA;

                for (; run > 0 && block < model->count; run--, block++) {
                        model->states[block] = (uint8_t) state;
                        if (state == MODEL_DATA)
                                random_bytes(model->bytes + block * model->block_size, layer_model_length(model, block));
                }
        }
}

/* Writes the model as a layer at path, in calls of random lengths. */
static inline LayerTotals layer_model_write(const LayerModel *model, int root_fd, const char *path) {
        LayerDescription description = {
                .repository = "6f1c6a5e-0000-4000-8000-000000000001", .vm_uuid = "6f1c6a5e-0000-4000-8000-000000000002",
                .vm = "vm1", .disk = "vda", .capture = "2026-11-20T010203Z.00000001",
                .disk_size = model->disk_size, .block_size = model->block_size, .codec = model->codec,
        };
        enum { BATCH = 7 };
        CLEANUP(layer_writer_freep) LayerWriter *writer = NULL;
        CLEANUP(freep) uint8_t *scratch = malloc((size_t) BATCH * model->block_size);
        ByteSink *sink = NULL;
        LayerTotals totals;
        Reason reason = REASON_INIT;

        CHECK_INT(file_sink_create(root_fd, path, &sink, &reason), 0);
        CHECK_INT(layer_writer_new(sink, &description, &writer, &reason), 0);
        for (uint64_t block = 0; block < model->count;) {
                uint64_t start = block * model->block_size, end = block;
                uint8_t state = model->states[block];
                uint64_t limit = state == MODEL_DATA ? 1 + random_below(BATCH) : 1 + random_below(100);

                while (end < model->count && model->states[end] == state && end - block < limit)
                        end++;
                if (state == MODEL_DATA) {
                        PackedBlock packed[BATCH];

                        for (uint64_t i = block; i < end; i++)
                                packed_block_pack(model->codec, 0, model->bytes + i * model->block_size,
                                                  (uint32_t) layer_model_length(model, i),
                                                  scratch + (i - block) * model->block_size, &packed[i - block]);
                        CHECK_INT(layer_writer_add_blocks(writer, start, packed, end - block, &reason), 0);
                } else if (state != MODEL_ABSENT)
                        CHECK_INT(layer_writer_add_extent(writer, start,
                                                          min_u64(end * model->block_size, model->disk_size) - start,
                                                          state == MODEL_ZERO ? EXTENT_ZERO : EXTENT_UNREADABLE, &reason),
                                  0);
                block = end;
        }
        CHECK_INT(layer_writer_finish(writer, &totals, &reason), 0);
        return totals;
}

static inline LayerLocation layer_model_location(const char *path, const LayerTotals *totals) {
        return (LayerLocation) { "native", path, NULL, totals->length, totals->seal };
}

/* A data block of zeroes is stored as zeroes: let the model say so too. */
static inline void layer_model_note_zeroes(LayerModel *model) {
        for (uint64_t i = 0; i < model->count; i++)
                if (model->states[i] == MODEL_DATA &&
                    bytes_are_zero(model->bytes + i * model->block_size, layer_model_length(model, i)))
                        model->states[i] = MODEL_ZERO;
}
