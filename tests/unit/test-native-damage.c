/* A layer file that is damaged, cut off or made to do harm gives the right bytes or an error: never wrong bytes, and
 * never more than what was asked for. */
#include <errno.h>
#include <sys/stat.h>

#include "codec/checksum.h"
#include "formats/native/layout.h"
#include "extents.h"
#include "layer-model.h"
#include "util/file.h"
#include "util/io.h"

#define PATH "a.layer"

typedef struct Bytes {
        uint8_t *bytes;
        size_t length;
} Bytes;

static Bytes load_file(const TemporaryDirectory *directory, const char *path) {
        Bytes file = { 0 };
        Reason reason = REASON_INIT;

        CHECK_INT(read_file(directory->fd, path, 64 << 20, (char **) &file.bytes, &file.length, &reason), 0);
        return file;
}

static void save_file(const TemporaryDirectory *directory, const uint8_t *bytes, size_t length) {
        CLEANUP(close_fd) int fd = openat(directory->fd, PATH, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        CHECK(fd >= 0);
        CHECK_INT(write_whole(fd, bytes, length), 0);
}

static int open_file(LayerStore *store, size_t length, uint64_t seal, Layer **ret, Reason *reason) {
        return layer_open(store, &(LayerLocation) { "native", PATH, NULL, length, seal }, ret, reason);
}

/* Every extent as the model has it or unreadable, every byte right or an error that names the file. Returns how many
 * blocks were lost. */
static size_t check_right_or_error(Layer *layer, const LayerModel *model) {
        static const ExtentState states[] = { [MODEL_DATA] = EXTENT_DATA, [MODEL_ZERO] = EXTENT_ZERO,
                                              [MODEL_UNREADABLE] = EXTENT_UNREADABLE };
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        CLEANUP(freep) uint8_t *buffer = malloc(model->block_size);
        Reason reason = REASON_INIT;
        size_t lost = 0;

        CHECK(layer_extents(layer, 0, model->disk_size, &map, &reason) >= 0);
        for (uint64_t block = 0; block < model->count; block++) {
                uint64_t start = block * model->block_size, length = layer_model_length(model, block);
                const Extent *extent = extent_at(map, start);

                if (model->states[block] == MODEL_ABSENT ? !extent
                                                        : extent && extent->state == states[model->states[block]]) {
                        if (model->states[block] != MODEL_DATA)
                                continue;
                        reason = REASON_INIT;
                        if (layer_read(layer, buffer, length, start, &reason) == 0) {
                                CHECK(memcmp(buffer, model->bytes + start, length) == 0);
                                continue;
                        }
                } else {
                        CHECK(extent);
                        CHECK_INT(extent->state, EXTENT_UNREADABLE);
                        CHECK_INT(layer_read(layer, buffer, length, start, &reason), -EIO);
                }
                CHECK_SAYS(reason, PATH);
                lost++;
        }
        return lost;
}

static LayerModel small_model(void) {
        LayerModel model = layer_model_new(11 * 4096 + 1234, 4096, "lz4");
        static const uint8_t states[] = { MODEL_DATA, MODEL_DATA, MODEL_ZERO, MODEL_ABSENT, MODEL_ABSENT, MODEL_DATA,
                                          MODEL_UNREADABLE, MODEL_ABSENT, MODEL_ZERO, MODEL_ZERO, MODEL_DATA, MODEL_DATA };

        memcpy(model.states, states, sizeof states);
        for (uint64_t i = 0; i < model.count; i++)
                memset(model.bytes + i * 4096, (int) i + 1, layer_model_length(&model, i));
        for (unsigned i = 0; i < 200; i++) /* one block that does not shrink much */
                model.bytes[4096 + i] = (uint8_t) random_u64();
        return model;
}

static void any_flipped_bit_gives_right_bytes_or_an_error(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(layer_store_freep) LayerStore *store = NULL;
        LayerModel model = small_model();
        LayerTotals totals = layer_model_write(&model, directory.fd, PATH);
        Bytes file = load_file(&directory, PATH);
        size_t opened = 0;

        CHECK_INT(layer_store_new(directory.fd, 1 << 20, &store), 0);
        for (size_t bit = 0; bit < file.length * 8; bit++) {
                CLEANUP(layer_unrefp) Layer *layer = NULL;
                Reason reason = REASON_INIT;

                file.bytes[bit / 8] ^= (uint8_t) (1 << bit % 8);
                save_file(&directory, file.bytes, file.length);
                if (open_file(store, file.length, totals.seal, &layer, &reason) == 0) {
                        CHECK(check_right_or_error(layer, &model) > 0);
                        opened++;
                } else
                        CHECK_SAYS(reason, PATH);
                file.bytes[bit / 8] ^= (uint8_t) (1 << bit % 8);
        }
        CHECK(opened > file.length / 2); /* else most of it would not have been tried */
        free(file.bytes);
        layer_model_clear(&model);
}

static void a_file_of_any_other_length_is_refused(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(layer_store_freep) LayerStore *store = NULL;
        LayerModel model = small_model();
        LayerTotals totals = layer_model_write(&model, directory.fd, PATH);
        Bytes file = load_file(&directory, PATH);

        CHECK_INT(layer_store_new(directory.fd, 1 << 20, &store), 0);
        for (size_t length = 0; length < file.length; length++) {
                Layer *layer;
                Reason reason = REASON_INIT;

                save_file(&directory, file.bytes, length);
                CHECK_INT(open_file(store, file.length, totals.seal, &layer, &reason), -EBADMSG);
                CHECK_SAYS(reason, "length");
                CHECK_INT(open_file(store, length, totals.seal, &layer, &reason), -EBADMSG);
                CHECK_SAYS(reason, PATH);
        }
        free(file.bytes);
        layer_model_clear(&model);
}

static void a_file_cut_off_while_in_use_is_an_error(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(layer_store_freep) LayerStore *store = NULL;
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        LayerModel model = small_model();
        LayerTotals totals = layer_model_write(&model, directory.fd, PATH);
        Reason reason = REASON_INIT;

        CHECK_INT(layer_store_new(directory.fd, 0, &store), 0);
        CHECK_INT(open_file(store, totals.length, totals.seal, &layer, &reason), 0);
        CHECK_INT(check_right_or_error(layer, &model), 0);
        {
                CLEANUP(close_fd) int fd = openat(directory.fd, PATH, O_WRONLY);

                CHECK_INT(ftruncate(fd, 10), 0);
        }
        check_right_or_error(layer, &model);
        layer_model_clear(&model);
}

static void what_is_no_file_is_no_layer(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(layer_store_freep) LayerStore *store = NULL;
        Reason reason = REASON_INIT;
        Layer *layer;

        CHECK_INT(layer_store_new(directory.fd, 0, &store), 0);
        CHECK(open_file(store, 1000, 1, &layer, &reason) < 0);
        CHECK_SAYS(reason, PATH);
        CHECK_INT(mkfifoat(directory.fd, PATH, 0600), 0);
        CHECK_INT(open_file(store, 1000, 1, &layer, &reason), -EBADMSG);
        CHECK_SAYS(reason, "no regular file");
        CHECK_INT(unlinkat(directory.fd, PATH, 0), 0);
        CHECK_INT(symlinkat("/etc/passwd", directory.fd, PATH), 0);
        CHECK_INT(open_file(store, 1000, 1, &layer, &reason), -ELOOP);
}

/* ---- files whose checksums are right, and nothing else ---- */

/* Makes all checksums right, from the pages up; returns the seal. What is no tree any more is left alone. */
static uint64_t reseal(Bytes *file) {
        uint8_t *footer = file->bytes + file->length - FOOTER_SIZE;
        uint64_t root = load_le64(footer + 32), header = HEADER_FIXED_SIZE + load_le32(file->bytes + 44);
        uint32_t length = load_le32(footer + 48);

        if (header + 8 < file->length) {
                store_le64(file->bytes + header, checksum(file->bytes, header));
                store_le64(footer + 8, load_le64(file->bytes + header));
        }
        if (root < file->length && length <= file->length - root) {
                uint8_t *page = file->bytes + root;

                for (uint32_t i = 0; length > 16 && memcmp(page, NODE_MAGIC, 4) == 0 && i < (length - 16) / NODE_ENTRY_SIZE;
                     i++) {
                        uint8_t *entry = page + NODE_HEADER_SIZE + i * NODE_ENTRY_SIZE;
                        uint64_t child = load_le64(entry + 16);

                        if (child < file->length && load_le32(entry + 32) <= file->length - child)
                                store_le64(entry + 24, checksum(file->bytes + child, load_le32(entry + 32)));
                }
                store_le64(footer + 40, checksum(page, length));
        }
        store_le64(footer + 96, checksum(footer, FOOTER_SIZE - 8));
        return load_le64(footer + 96);
}

/* Uses a layer in every way; whatever comes of it, it must not do harm. */
static void use_layer(Layer *layer) {
        uint64_t size = layer_disk_size(layer);
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        static uint8_t buffer[1 << 16];
        Reason reason = REASON_INIT;

        if (layer_extents(layer, 0, size, &map, &reason) < 0)
                return;
        for (size_t i = 0; i < min_u64(extent_map_count(map), 50); i++) {
                const Extent *extent = extent_map_get(map, random_below(extent_map_count(map)));
                uint64_t skip = random_below(extent->length);

                (void) layer_read(layer, buffer, min_u64(extent->length - skip, random_below(sizeof buffer) + 1),
                                  extent->start + skip, &reason);
        }
        for (unsigned i = 0; i < 10 && size > 0; i++) {
                uint64_t start = random_below(size);

                (void) layer_read(layer, buffer, min_u64(size - start, 5000), start, &reason);
        }
}

static uint64_t hostile_value(uint64_t old) {
        static const uint64_t values[] = {
                0, 1, 2, 3, 0xffffffff, 0x80000000, UINT64_MAX, INT64_MAX, (uint64_t) INT64_MAX + 1, 16384};

        switch (random_below(3)) {
        case 0:
                return values[random_below(sizeof values / sizeof *values)];
        case 1:
                return old + random_below(5) - 2;
        default:
                return old ^ UINT64_C(1) << random_below(64);
        }
}

/* Three leaves and a node of blocks that take a byte each. */
static void write_tree_of_tiny_blocks(const TemporaryDirectory *directory) {
        LayerDescription description = {
                .repository = "r", .vm_uuid = "u", .vm = "vm1", .disk = "vda", .capture = "c",
                .disk_size = UINT64_C(1) << 30, .block_size = 4096, .codec = codec_by_name("lz4"),
        };
        CLEANUP(layer_writer_freep) LayerWriter *writer = NULL;
        static const uint8_t byte = 1;
        PackedBlock block = { &byte, 1, checksum(&byte, 1) };
        Reason reason = REASON_INIT;
        LayerTotals totals;
        ByteSink *sink;

        CHECK_INT(file_sink_create(directory->fd, PATH, &sink, &reason), 0);
        CHECK_INT(layer_writer_new(sink, &description, &writer, &reason), 0);
        for (uint64_t i = 0; i < 1800; i++) {
                if (i % 5 == 0)
                        CHECK_INT(layer_writer_add_extent(writer, i * 8192, 4096, i % 2 ? EXTENT_ZERO : EXTENT_UNREADABLE,
                                                          &reason),
                                  0);
                else
                        CHECK_INT(layer_writer_add_blocks(writer, i * 8192, &block, 1, &reason), 0);
        }
        CHECK_INT(layer_writer_finish(writer, &totals, &reason), 0);
}

static void hostile_numbers_behind_right_checksums_do_no_harm(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(layer_store_freep) LayerStore *store = NULL;
        size_t opened = 0;
        Bytes file;

        write_tree_of_tiny_blocks(&directory);
        file = load_file(&directory, PATH);
        CHECK_INT(layer_store_new(directory.fd, 1 << 20, &store), 0);
        for (unsigned round = 0; round < 4000; round++) {
                CLEANUP(freep) uint8_t *bytes = malloc(file.length);
                Bytes changed = { bytes, file.length };
                CLEANUP(layer_unrefp) Layer *layer = NULL;
                const uint8_t *footer = file.bytes + file.length - FOOTER_SIZE;
                uint64_t root = load_le64(footer + 32), seal;
                Reason reason = REASON_INIT;

                memcpy(bytes, file.bytes, file.length);
                for (uint64_t changes = 1 + random_below(2); changes > 0; changes--) {
                        /* The header, the footer, the node, or anything before it, which is mostly leaves. */
                        uint64_t from = 0, to = root, at;

                        switch (random_below(5)) {
                        case 0:
                                to = HEADER_FIXED_SIZE;
                                break;
                        case 1:
                                from = file.length - FOOTER_SIZE;
                                to = file.length - 8;
                                break;
                        case 2:
                                from = root;
                                to = file.length - FOOTER_SIZE;
                                break;
                        }
                        at = from + random_below((to - from) / 4) * 4;
                        if (random_below(2))
                                store_le32(bytes + at, (uint32_t) hostile_value(load_le32(bytes + at)));
                        else if (to - at >= 8)
                                store_le64(bytes + at, hostile_value(load_le64(bytes + at)));
                }
                seal = reseal(&changed);
                save_file(&directory, bytes, file.length);
                if (open_file(store, file.length, seal, &layer, &reason) == 0) {
                        use_layer(layer);
                        opened++;
                } else
                        CHECK_SAYS(reason, PATH);
        }
        CHECK(opened > 1000);
        free(file.bytes);
}

/* A file made by hand: header, then pages. */
static size_t begin_file(uint8_t *file, uint64_t disk_size) {
        memset(file, 0, 4096);
        memcpy(file, HEADER_MAGIC, 8);
        store_le32(file + 8, LAYOUT_VERSION);
        store_le64(file + 32, disk_size);
        store_le32(file + 40, 4096);
        store_le64(file + HEADER_FIXED_SIZE, checksum(file, HEADER_FIXED_SIZE));
        return HEADER_FIXED_SIZE + 8;
}

static void put_entry(uint8_t *at, uint64_t first, uint64_t end, uint64_t offset, uint64_t sum, uint32_t length) {
        store_le64(at, first);
        store_le64(at + 8, end);
        store_le64(at + 16, offset);
        store_le64(at + 24, sum);
        store_le32(at + 32, length);
        store_le32(at + 36, 0);
}

static void put_node(uint8_t *at, uint32_t level, uint32_t count) {
        memcpy(at, NODE_MAGIC, 4);
        store_le32(at + 4, level);
        store_le32(at + 8, count);
        store_le32(at + 12, 0);
}

static void a_page_that_two_entries_lead_to_is_damage(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(layer_store_freep) LayerStore *store = NULL;
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        uint8_t bytes[4096], *footer;
        Bytes file = { bytes, 0 };
        size_t at = begin_file(bytes, 100 * 4096), leaf = at, node, root;
        uint8_t buffer[4096];
        Reason reason = REASON_INIT;

        memcpy(bytes + at, LEAF_MAGIC, 4); /* zeroes in blocks 0 to 9 */
        store_le32(bytes + at + 8, 1);
        store_le64(bytes + at + 24, at);
        store_le64(bytes + at + 32, 10 << 2 | RECORD_ZERO);
        node = at += 40;
        put_node(bytes + at, 1, 1);
        put_entry(bytes + at + NODE_HEADER_SIZE, 0, 10, leaf, checksum(bytes + leaf, 40), 40);
        root = at += NODE_HEADER_SIZE + NODE_ENTRY_SIZE;
        put_node(bytes + at, 2, 2);
        put_entry(bytes + at + NODE_HEADER_SIZE, 0, 10, node, checksum(bytes + node, root - node), (uint32_t) (root - node));
        put_entry(bytes + at + NODE_HEADER_SIZE + NODE_ENTRY_SIZE, 10, 20, node, checksum(bytes + node, root - node),
                  (uint32_t) (root - node));
        at += NODE_HEADER_SIZE + 2 * NODE_ENTRY_SIZE;
        footer = bytes + at;
        memcpy(footer, FOOTER_MAGIC, 8);
        put_entry(footer + 16, 0, 20, root, 0, (uint32_t) (at - root));
        store_le32(footer + 52, 2);
        file.length = at + FOOTER_SIZE;
        (void) reseal(&file);
        save_file(&directory, bytes, file.length);

        CHECK_INT(layer_store_new(directory.fd, 1 << 20, &store), 0);
        CHECK_INT(open_file(store, file.length, load_le64(footer + 96), &layer, &reason), 0);
        CHECK_INT(layer_extents(layer, 0, 100 * 4096, &map, &reason), 1);
        CHECK_INT(extent_map_count(map), 2);
        CHECK_INT(extent_map_get(map, 0)->state, EXTENT_ZERO);
        CHECK_INT(extent_map_get(map, 0)->length, 10 * 4096);
        CHECK_INT(extent_map_get(map, 1)->state, EXTENT_UNREADABLE);
        CHECK_INT(extent_map_get(map, 1)->length, 10 * 4096);
        CHECK_INT(layer_read(layer, buffer, 4096, 15 * 4096, &reason), -EIO);
        CHECK_SAYS(reason, "several entries lead to it");
}

static void newer_layers_are_refused_as_such(void) {
        WITH_DIRECTORY(directory);
        CLEANUP(layer_store_freep) LayerStore *store = NULL;
        LayerModel model = small_model();
        Bytes file;
        static const size_t places[] = { 8, 12, 16, 23 }; /* version, codec, required features */
        Reason reason = REASON_INIT;
        Layer *layer;

        layer_model_write(&model, directory.fd, PATH);
        file = load_file(&directory, PATH);
        CHECK_INT(layer_store_new(directory.fd, 0, &store), 0);
        for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
                uint64_t seal;

                file.bytes[places[i]] ^= 0x40;
                seal = reseal(&file);
                save_file(&directory, file.bytes, file.length);
                CHECK_INT(open_file(store, file.length, seal, &layer, &reason), -ENOTSUP);
                CHECK_SAYS(reason, PATH);
                file.bytes[places[i]] ^= 0x40;
        }
        file.bytes[24] ^= 0x40; /* an optional feature */
        {
                uint64_t seal = reseal(&file);

                save_file(&directory, file.bytes, file.length);
                CHECK_INT(open_file(store, file.length, seal, &layer, &reason), 0);
                CHECK_INT(check_right_or_error(layer, &model), 0);
                layer_unref(layer);
        }
        free(file.bytes);
        layer_model_clear(&model);
}

int main(void) {
        RUN(any_flipped_bit_gives_right_bytes_or_an_error);
        RUN(a_file_of_any_other_length_is_refused);
        RUN(a_file_cut_off_while_in_use_is_an_error);
        RUN(what_is_no_file_is_no_layer);
        RUN(hostile_numbers_behind_right_checksums_do_no_harm);
        RUN(a_page_that_two_entries_lead_to_is_damage);
        RUN(newer_layers_are_refused_as_such);
        return unit_result();
}
