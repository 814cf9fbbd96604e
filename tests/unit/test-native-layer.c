/* Layers as they are written come back the same, whatever is in them. */
#include <errno.h>

#include "layer-model.h"

static const char *const codec_names[] = { "lz4", "zstd", "none" };

/* The model's state at a byte, as extents have it; -1: absent. */
static int expected_state(const LayerModel *model, uint64_t offset) {
        static const int states[] = { -1, EXTENT_DATA, EXTENT_ZERO, EXTENT_UNREADABLE };

        return states[model->states[offset / model->block_size]];
}

static void check_state(const LayerModel *model, uint64_t from, uint64_t to, int state) {
        for (; from < to; from = round_down(from, model->block_size) + model->block_size)
                CHECK_INT(expected_state(model, from), state);
}

static void check_extents(Layer *layer, const LayerModel *model, uint64_t start, uint64_t length) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        Reason reason = REASON_INIT;
        uint64_t offset = start;

        CHECK_INT(layer_extents(layer, start, length, &map, &reason), 0);
        for (size_t i = 0; i < extent_map_count(map); i++) {
                const Extent *extent = extent_map_get(map, i);

                CHECK(extent->start >= offset && extent->start + extent->length <= start + length);
                check_state(model, offset, extent->start, -1);
                check_state(model, extent->start, extent->start + extent->length, (int) extent->state);
                offset = extent->start + extent->length;
        }
        check_state(model, offset, start + length, -1);
}

/* Reads the range extent by extent, as a chain does, and compares. */
static void check_bytes(Layer *layer, const LayerModel *model, uint64_t start, uint64_t length) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        CLEANUP(freep) uint8_t *buffer = malloc(length + 1);
        Reason reason = REASON_INIT;

        CHECK_INT(layer_extents(layer, start, length, &map, &reason), 0);
        for (size_t i = 0; i < extent_map_count(map); i++) {
                const Extent *extent = extent_map_get(map, i);
                int rc = layer_read(layer, buffer, extent->length, extent->start, &reason);

                CHECK_INT(rc, extent->state == EXTENT_DATA ? 0 : -EIO);
                if (extent->state == EXTENT_DATA)
                        CHECK(memcmp(buffer, model->bytes + extent->start, extent->length) == 0);
                if (extent->state == EXTENT_UNREADABLE)
                        CHECK_SAYS(reason, "could not be read when it was captured");
        }
}

static void random_layers_come_back_the_same(void) {
        WITH_DIRECTORY(directory);

        for (unsigned round = 0; round < 60; round++) {
                uint32_t block_size = NATIVE_BLOCK_SIZE_MIN << random_below(9);
                uint64_t disk_size = random_below(min_u64(600, (16u << 20) / block_size)) * block_size +
                                     random_below(2) * random_below(block_size);
                LayerModel model = layer_model_new(disk_size, block_size, codec_names[round % 3]);
                LayerStore *store;
                Layer *layer;
                Reason reason = REASON_INIT;
                LayerLocation location;
                LayerTotals totals;
                char path[32];

                CHECK_INT(layer_store_new(directory.fd, round % 2 ? 4u << 20 : 0, &store), 0);
                layer_model_fill(&model, (unsigned) random_below(11));
                layer_model_note_zeroes(&model);
                snprintf(path, sizeof path, "%u.layer", round);
                totals = layer_model_write(&model, directory.fd, path);
                location = layer_model_location(path, &totals);
                CHECK_INT(layer_open(store, &location, &layer, &reason), 0);
                CHECK_INT(layer_disk_size(layer), disk_size);
                check_extents(layer, &model, 0, disk_size);
                check_bytes(layer, &model, 0, disk_size);
                for (unsigned i = 0; i < 40 && disk_size > 0; i++) {
                        uint64_t start = random_below(disk_size),
                                 length = random_below(min_u64(disk_size - start, 300000) + 1);

                        check_extents(layer, &model, start, length);
                        check_bytes(layer, &model, start, length);
                        check_bytes(layer, &model, start, min_u64(length, 1 + random_below(600)));
                }
                layer_unref(layer);
                CHECK_INT(cache_used(layer_store_files(store)), 0);
                CHECK_INT(cache_used(layer_store_memory(store)), 0);
                layer_store_free(store);
                layer_model_clear(&model);
        }
}

static LayerWriter *new_writer(int root_fd, const char *path, uint64_t disk_size, uint32_t block_size) {
        LayerDescription description = {
                .repository = "r", .vm_uuid = "u", .vm = "vm1", .disk = "vda", .capture = "c",
                .disk_size = disk_size, .block_size = block_size, .codec = codec_by_name("none"),
        };
        Reason reason = REASON_INIT;
        LayerWriter *writer;
        ByteSink *sink;

        CHECK_INT(file_sink_create(root_fd, path, &sink, &reason), 0);
        CHECK_INT(layer_writer_new(sink, &description, &writer, &reason), 0);
        return writer;
}

/* Stand-ins for blocks: one byte each, so that an index of many costs no space. */
static void add_tiny_blocks(LayerWriter *writer, uint64_t start, size_t count) {
        static const uint8_t byte = 1;
        PackedBlock blocks[64];
        Reason reason = REASON_INIT;

        CHECK(count <= 64);
        for (size_t i = 0; i < count; i++)
                blocks[i] = (PackedBlock) { &byte, 1, 0 };
        CHECK_INT(layer_writer_add_blocks(writer, start, blocks, count, &reason), 0);
}

static void isolated_blocks_cost_less_than_24_bytes_of_index_and_runs_less_than_13(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(layer_writer_freep) LayerWriter *isolated = new_writer(directory.fd, "isolated", UINT64_C(1) << 44, 65536);
        CLEANUP(layer_writer_freep) LayerWriter *runs = new_writer(directory.fd, "runs", UINT64_C(1) << 44, 65536);
        Reason reason = REASON_INIT;
        LayerTotals totals;

        for (uint64_t i = 0; i < 1000000; i++)
                add_tiny_blocks(isolated, i * 3 * 65536, 1);
        CHECK_INT(layer_writer_finish(isolated, &totals, &reason), 0);
        CHECK_INT(totals.blocks, 1000000);
        CHECK(totals.index_length < 21 * totals.blocks);
        for (uint64_t i = 0; i < 1000000; i += 50)
                add_tiny_blocks(runs, i * 3 * 65536, 50);
        CHECK_INT(layer_writer_finish(runs, &totals, &reason), 0);
        CHECK_INT(totals.blocks, 1000000);
        CHECK(totals.index_length < 13 * totals.blocks);
}

static void the_largest_disk_holds_runs_and_gaps_that_pass_their_fields(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(layer_store_freep) LayerStore *store = NULL;
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        uint64_t size = INT64_MAX, last = round_down(size, 4096), run = UINT64_C(3) << 42;
        LayerWriter *writer = new_writer(directory.fd, "a", size, 4096);
        Reason reason = REASON_INIT;
        LayerLocation location;
        LayerTotals totals;

        CHECK_INT(layer_writer_add_extent(writer, 4096, run, EXTENT_ZERO, &reason), 0);
        CHECK_INT(layer_writer_add_extent(writer, last - 4096, size - (last - 4096), EXTENT_UNREADABLE, &reason), 0);
        CHECK_INT(layer_writer_finish(writer, &totals, &reason), 0);
        layer_writer_free(writer);
        CHECK_INT(totals.zero, run);
        CHECK_INT(totals.unreadable, size - (last - 4096));
        CHECK_INT(layer_store_new(directory.fd, 1 << 20, &store), 0);
        location = layer_model_location("a", &totals);
        CHECK_INT(layer_open(store, &location, &layer, &reason), 0);
        CHECK_INT(layer_extents(layer, 0, size, &map, &reason), 0);
        CHECK_INT(extent_map_count(map), 2);
        CHECK_INT(extent_map_get(map, 0)->start, 4096);
        CHECK_INT(extent_map_get(map, 0)->length, run);
        CHECK_INT(extent_map_get(map, 1)->start, last - 4096);
        CHECK_INT(extent_map_get(map, 1)->length, size - (last - 4096));
}

static void ranges_out_of_order_or_past_the_end_are_refused(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(layer_writer_freep) LayerWriter *writer = new_writer(directory.fd, "a", 10 * 4096 + 100, 4096);
        static const uint8_t bytes[8192];
        PackedBlock blocks[3] = { { bytes, 100, 0 }, { bytes, 100, 0 }, { bytes, 100, 0 } };
        PackedBlock long_block = { bytes, 4097, 0 };
        Reason reason = REASON_INIT;

        CHECK_INT(layer_writer_add_extent(writer, 100, 4096, EXTENT_ZERO, &reason), -EINVAL);
        CHECK_INT(layer_writer_add_extent(writer, 0, 100, EXTENT_ZERO, &reason), -EINVAL);
        CHECK_INT(layer_writer_add_extent(writer, 8192, 4096, EXTENT_ZERO, &reason), 0);
        CHECK_INT(layer_writer_add_extent(writer, 4096, 4096, EXTENT_ZERO, &reason), -EINVAL);
        CHECK_INT(layer_writer_add_extent(writer, 10 * 4096, 4096, EXTENT_ZERO, &reason), -EINVAL);
        CHECK_INT(layer_writer_add_extent(writer, UINT64_MAX - 4095, 8192, EXTENT_ZERO, &reason), -EINVAL);
        CHECK_INT(layer_writer_add_blocks(writer, 9 * 4096, blocks, 3, &reason), -EINVAL);
        CHECK_INT(layer_writer_add_blocks(writer, 11 * 4096, blocks, 1, &reason), -EINVAL);
        CHECK_INT(layer_writer_add_blocks(writer, 8 * 4096, &long_block, 1, &reason), -EINVAL);
        CHECK_INT(layer_writer_add_blocks(writer, 9 * 4096, blocks, 2, &reason), 0);
}

/* A sink that takes so many bytes and no more, as a full disk does. */
typedef struct ShortSink {
        ByteSink sink;
        uint64_t room;
} ShortSink;

static int short_append(ByteSink *sink, const void *buffer, size_t length, Reason *reterr) {
        ShortSink *s = (ShortSink *) sink;

        if (length > s->room)
                return fail(reterr, -ENOSPC, "full");
        s->room -= length;
        return 0;
}

static int short_commit(ByteSink *sink, Reason *reterr) {
        return 0;
}

static void short_free(ByteSink *sink) {
        free(sink);
}

static void a_layer_whose_writing_failed_cannot_be_finished(void) {
        static const ByteSinkOps ops = { short_append, short_commit, short_free };
        LayerDescription description = {
                .repository = "r", .vm_uuid = "u", .vm = "vm1", .disk = "vda", .capture = "c",
                .disk_size = 1 << 20, .block_size = 4096, .codec = codec_by_name("none"),
        };
        CLEANUP(layer_writer_freep) LayerWriter *writer = NULL;
        ShortSink *sink = calloc(1, sizeof *sink);
        static const uint8_t bytes[4096] = { 1 };
        PackedBlock block = { bytes, 4096, 1 };
        Reason reason = REASON_INIT;
        LayerTotals totals;

        sink->sink = (ByteSink) { .ops = &ops, .name = (char *) "short" };
        sink->room = 6000;
        CHECK_INT(layer_writer_new(&sink->sink, &description, &writer, &reason), 0);
        CHECK_INT(layer_writer_add_blocks(writer, 0, &block, 1, &reason), 0);
        CHECK_INT(layer_writer_add_blocks(writer, 4096, &block, 1, &reason), -ENOSPC);
        sink->room = 1 << 20;
        CHECK_INT(layer_writer_finish(writer, &totals, &reason), -EINVAL);
        CHECK_SAYS(reason, "cannot be finished");
}

static void descriptions_that_do_not_fit_are_refused(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(byte_sink_freep) ByteSink *sink = NULL;
        LayerDescription description = {
                .repository = "r", .vm_uuid = "u", .vm = "vm1", .disk = "vda", .capture = "c",
                .disk_size = 1 << 20, .block_size = 4096, .codec = codec_by_name("none"),
        };
        static const uint32_t block_sizes[] = { 0, 1, 2048, 4097, 4u << 20, UINT32_MAX };
        Reason reason = REASON_INIT;
        LayerWriter *writer;

        CHECK_INT(file_sink_create(directory.fd, "a", &sink, &reason), 0);
        for (size_t i = 0; i < sizeof block_sizes / sizeof *block_sizes; i++) {
                description.block_size = block_sizes[i];
                CHECK_INT(layer_writer_new(sink, &description, &writer, &reason), -EINVAL);
                CHECK_SAYS(reason, "block size");
        }
        description.block_size = 4096;
        description.disk_size = UINT64_C(1) << 63;
        CHECK_INT(layer_writer_new(sink, &description, &writer, &reason), -EINVAL);
        CHECK_SAYS(reason, "too large");
        CHECK_INT(byte_sink_size(sink), 0);
}

static void a_layer_that_is_open_is_shared_and_gone_with_its_last_reference(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(layer_store_freep) LayerStore *store = NULL;
        LayerModel model = layer_model_new(100000, 4096, "lz4");
        Layer *first, *second, *third;
        LayerLocation location;
        LayerTotals totals;
        Reason reason = REASON_INIT;

        layer_model_fill(&model, 3);
        totals = layer_model_write(&model, directory.fd, "a");
        location = layer_model_location("a", &totals);
        CHECK_INT(layer_store_new(directory.fd, 1 << 20, &store), 0);
        CHECK_INT(layer_open(store, &location, &first, &reason), 0);
        CHECK_INT(layer_open(store, &location, &second, &reason), 0);
        CHECK(first == second);
        location.seal ^= 1;
        CHECK_INT(layer_open(store, &location, &third, &reason), -EBADMSG);
        CHECK_SAYS(reason, "another layer");
        layer_unref(first);
        CHECK(cache_used(layer_store_files(store)) == 1);
        layer_unref(second);
        CHECK(cache_used(layer_store_files(store)) == 0);
        location.format = "qcow7";
        CHECK_INT(layer_open(store, &location, &third, &reason), -ENOTSUP);
        CHECK_SAYS(reason, "qcow7");
        layer_model_clear(&model);
}

int main(void) {
        RUN(random_layers_come_back_the_same);
        RUN(isolated_blocks_cost_less_than_24_bytes_of_index_and_runs_less_than_13);
        RUN(the_largest_disk_holds_runs_and_gaps_that_pass_their_fields);
        RUN(ranges_out_of_order_or_past_the_end_are_refused);
        RUN(a_layer_whose_writing_failed_cannot_be_finished);
        RUN(descriptions_that_do_not_fit_are_refused);
        RUN(a_layer_that_is_open_is_shared_and_gone_with_its_last_reference);
        return unit_result();
}
