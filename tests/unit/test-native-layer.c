/* Layers as they are written come back the same, whatever is in them. */
#include <errno.h>


#include "formats/layer.h"
#include "formats/native/layer-writer.h"
#include "temporary.h"
#include "unit.h"

#define BLOCK 4096u

static unsigned seed = 1;

static unsigned pick(unsigned below) {
        return (unsigned) rand_r(&seed) % below;
}

typedef struct Model {
        uint64_t size;
        unsigned char *bytes;
        unsigned char *states; /* of each block: an ExtentState, or 255: absent */
} Model;

static void write_layer(int dir_fd, const char *name, const Model *model, const char *codec, LayerTotals *ret) {
        LayerDescription description = { "r", "u", "vm1", "vda", "c", model->size, BLOCK, codec_by_name(codec) };
        CLEANUP(layer_writer_freep) LayerWriter *writer = NULL;
        unsigned char scratch[BLOCK];
        ByteSink *sink;
        Reason reason;

        CHECK_INT(file_sink_create(dir_fd, name, &sink, &reason), 0);
        CHECK_INT(layer_writer_new(sink, &description, &writer, &reason), 0);
        for (uint64_t start = 0; start < model->size; start += BLOCK) {
                uint32_t length = model->size - start < BLOCK ? (uint32_t) (model->size - start) : BLOCK;
                PackedBlock packed;

                switch (model->states[start / BLOCK]) {
                case EXTENT_DATA:
                        packed_block_pack(description.codec, model->bytes + start, length, scratch, &packed);
                        CHECK_INT(layer_writer_add_blocks(writer, start, &packed, 1, &reason), 0);
                        break;
                case EXTENT_ZERO:
                case EXTENT_UNREADABLE:
                        CHECK_INT(layer_writer_add_extent(writer, start, length, model->states[start / BLOCK], &reason), 0);
                        break;
                }
        }
        CHECK_INT(layer_writer_finish(writer, ret, &reason), 0);
}

static void make_model(Model *model, uint64_t size, unsigned run) {
        unsigned state = 0;

        *model = (Model) { size, calloc(1, size + 1), malloc(size / BLOCK + 1) };
        for (uint64_t block = 0; block * BLOCK < size; block++) {
                uint64_t length = size - block * BLOCK < BLOCK ? size - block * BLOCK : BLOCK;

                if (pick(run) == 0)
                        state = pick(4);
                model->states[block] = state == 3 ? 255 : (unsigned char) state;
                if (state != EXTENT_DATA)
                        continue;
                /* Half of a block is noise, so that both kinds of storing are met. */
                for (uint64_t i = 0; i < length; i++)
                        model->bytes[block * BLOCK + i] = block % 3 || i < BLOCK / 2 ? (unsigned char) pick(256) : 1;
                model->bytes[block * BLOCK] = 1;
        }
}

static void check_layer(Layer *layer, const Model *model) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        unsigned char *buffer = malloc(model->size + 1);
        Reason reason;

        CHECK_INT(layer_extents(layer, 0, model->size, &map, &reason), 0);
        for (uint64_t start = 0; start < model->size; start += BLOCK) {
                size_t i = extent_map_find(map, start);
                const Extent *extent = i < extent_map_count(map) ? extent_map_get(map, i) : NULL;

                CHECK_INT(extent && extent->start <= start ? extent->state : 255, model->states[start / BLOCK]);
        }
        for (unsigned i = 0; i < extent_map_count(map); i++) {
                const Extent *extent = extent_map_get(map, i);
                uint64_t skip = pick((unsigned) extent->length), length = 1 + pick((unsigned) (extent->length - skip));

                if (extent->state != EXTENT_DATA)
                        continue;
                CHECK_INT(layer_read(layer, buffer, length, extent->start + skip, &reason), 0);
                CHECK(memcmp(buffer, model->bytes + extent->start + skip, length) == 0);
                CHECK_INT(layer_read(layer, buffer, extent->length, extent->start, &reason), 0);
                CHECK(memcmp(buffer, model->bytes + extent->start, extent->length) == 0);
        }
        free(buffer);
}

static void random_layers_come_back_the_same(void) {
        CLEANUP(temporary_directory_clear) TemporaryDirectory temporary = temporary_directory();
        static const char *const codecs[] = { "lz4", "none", "zstd" };
        CLEANUP(layer_store_freep) LayerStore *store = NULL;

        CHECK_INT(layer_store_new(temporary.fd, 1 << 20, &store), 0);
        for (int i = 0; i < 60; i++) {
                CLEANUP(layer_unrefp) Layer *layer = NULL;
                LayerTotals totals;
                char name[32];
                Reason reason;
                Model model;

                snprintf(name, sizeof name, "%d.layer", i);
                make_model(&model, i == 0 ? 0 : pick(i < 20 ? 5 * BLOCK : 4000 * BLOCK), 1 + pick(100));
                write_layer(temporary.fd, name, &model, codecs[i % 3], &totals);
                CHECK_INT(layer_open(store, &(LayerLocation) { "native", name, totals.length, totals.seal }, &layer, &reason), 0);
                CHECK_INT(layer_disk_size(layer), model.size);
                check_layer(layer, &model);
                free(model.bytes);
                free(model.states);
        }
}

int main(void) {
        RUN(random_layers_come_back_the_same);
        return unit_result();
}
