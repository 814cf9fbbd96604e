/* A disk at a point is what its layers make of it, byte for byte. */
#include <errno.h>
#include <jansson.h>

#include "chain-model.h"
#include "chain/chain-map.h"
#include "chain/chain-private.h"
#include "partitions/point-image.h"
#include "util/sealed-json.h"

static ByteKind kind_of(const ChainExtent *extent) {
        return extent->state == EXTENT_DATA ? BYTE_DATA : extent->state == EXTENT_ZERO ? BYTE_ZERO : BYTE_LOST;
}

/* Loops over each byte of a model: no other thread has any, and TSan would take nearly all of its time for them. */
#define OF_ONE_THREAD __attribute__((no_sanitize("thread")))

/* How far bytes are of one kind and of one point. */
OF_ONE_THREAD static uint64_t end_of_run(const PointModel *model, uint64_t offset) {
        uint64_t end = offset;

        while (end < model->size && model->kinds[end] == model->kinds[offset] &&
               model->points[end] == model->points[offset])
                end++;
        return end;
}

/* The first byte from offset on that is a hole, or is none; the size where there is no such. */
OF_ONE_THREAD static uint64_t find(const PointModel *model, uint64_t offset, bool hole) {
        while (offset < model->size && (model->kinds[offset] == BYTE_ZERO) != hole)
                offset++;
        return offset;
}

static void check_extents(Chain *chain, const PointModel *model, const PointModel *points) {
        Reason reason = REASON_INIT;
        ChainExtent extent;

        for (uint64_t offset = 0; offset < model->size; offset += extent.length) {
                CHECK_INT(chain_next_extent(chain, offset, &extent, &reason), 0);
                CHECK_INT(extent.start, offset);
                CHECK_INT(extent.length, end_of_run(model, offset) - offset);
                CHECK_INT(kind_of(&extent), model->kinds[offset]);
                if (model->points[offset] == NOBODY)
                        CHECK(!extent.point);
                else
                        CHECK_TEXT(extent.point, points[model->points[offset]].name);
        }
}

static void check_read(Chain *chain, const PointModel *model, uint64_t offset, size_t length) {
        CLEANUP(freep) uint8_t *buffer = malloc(length + 1);
        bool lost = memchr(model->kinds + offset, BYTE_LOST, length) != NULL;
        bool zero = !lost && !memchr(model->kinds + offset, BYTE_DATA, length);
        Reason reason = REASON_INIT;
        int rc = chain_read(chain, buffer, length, offset, &reason);

        CHECK_INT(rc, lost ? -EIO : 0);
        if (rc == 0)
                CHECK(memcmp(buffer, model->values + offset, length) == 0);
        else
                CHECK(reason.text[0]);
        CHECK_INT(chain_is_zero(chain, offset, length), zero);
}

static void check_seek(const ChainView *view, const PointModel *model, uint64_t offset) {
        uint64_t data = find(model, offset, false), hole = find(model, offset, true);

        CHECK_INT(chain_view_seek(view, offset, SEEK_DATA), data < model->size ? (int64_t) data : -ENXIO);
        CHECK_INT(chain_view_seek(view, offset, SEEK_HOLE), hole);
}

static void check_point(Fixture *f, const PointModel *model, const PointModel *points) {
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        CLEANUP(chain_view_freep) ChainView *view = NULL;
        Reason reason = REASON_INIT;
        uint8_t byte;

        CHECK_INT(chain_open(f->vm, model->name, "vda", &chain, &reason), 0);
        CHECK_INT(point_image_open_disk(f->vm, model->name, "vda", &view, &reason), 0);
        CHECK_INT(chain_size(chain), model->size);
        CHECK(!chain_damage(chain));
        check_extents(chain, model, points);
        for (unsigned i = 0; i < 60 && model->size > 0; i++) {
                uint64_t offset = random_below(model->size);

                atomic_store(&chain->waits, random_below(2)); /* as where the disk is slow */
                check_read(chain, model, offset, random_below(min_u64(model->size - offset, i % 4 ? 20000 : 2u << 20) + 1));
                check_seek(view, model, offset);
        }
        CHECK_INT(chain_read(chain, &byte, 0, model->size, &reason), 0);
        CHECK_INT(chain_read(chain, &byte, 1, model->size, &reason), -EINVAL);
        CHECK_INT(chain_read(chain, &byte, 1, UINT64_MAX, &reason), -EINVAL);
        CHECK_INT(chain_view_seek(view, model->size, SEEK_DATA), -ENXIO);
        CHECK_INT(chain_view_seek(view, model->size, SEEK_HOLE), -ENXIO);
}

/* Points of random layers, block sizes and disk sizes, some of several layers, some full in between. */
static void try_history(unsigned count, uint64_t size_max, unsigned block_shift_min, unsigned block_shift_max) {
        static const char *const codecs[] = { "lz4", "zstd", "none" };
        PointModel points[16];
        Fixture f = fixture();

        CHECK(count <= 16);
        for (unsigned i = 0; i < count; i++) {
                bool keep_size = i > 0 && random_below(2);
                uint64_t size = keep_size ? points[i - 1].size : size_max / 2 + random_below(size_max / 2);
                bool full = i == 0 || random_below(8) == 0;
                LayerModel layers[2];
                size_t layer_count = 1 + (random_below(5) == 0);

                points[i] = point_model_new(i, size, full ? NULL : &points[i - 1]);
                for (size_t l = layer_count; l-- > 0;) { /* the oldest first; the list begins with the newest */
                        layers[l] = layer_model_new(
                                size, 1u << (block_shift_min + random_below(block_shift_max - block_shift_min + 1)),
                                codecs[random_below(3)]);
                        layer_model_fill(&layers[l], full && l == layer_count - 1 ? (unsigned) random_below(2)
                                                                                  : 3 + (unsigned) random_below(7));
                        layer_model_note_zeroes(&layers[l]);
                        point_model_apply(&points[i], &layers[l], i);
                }
                write_point(&f, points[i].name, i > 0 ? points[i - 1].name : NULL, i + 1,
                            full ? POINT_FULL : POINT_INCREMENTAL, size, layers, layer_count);
                for (size_t l = 0; l < layer_count; l++)
                        layer_model_clear(&layers[l]);
        }
        /* Newest first each chain is made of manifests, oldest first of the chain before it. */
        for (unsigned i = 0, newest_first = (unsigned) random_below(2); i < count; i++)
                check_point(&f, &points[newest_first ? count - 1 - i : i], points);
        for (unsigned i = 0; i < count; i++)
                point_model_clear(&points[i]);
        fixture_clear(&f);
}

static void random_histories_read_as_their_model(void) {
        for (unsigned round = 0; round < 12; round++)
                try_history(2 + (unsigned) random_below(14), 1 + random_below(600000), 12, 16);
}

static void random_histories_over_several_regions_read_as_their_model(void) {
        try_history(4, 80u << 20, 16, 21);
}

static void more_extents_than_a_wide_region_takes_are_all_told(void) {
        LayerModel layer = layer_model_new(132u << 20, 4096, "lz4");
        PointModel point = point_model_new(0, layer.disk_size, NULL);
        Fixture f = fixture_with_cache(REPOSITORY_CACHE_DEFAULT); /* regions are flattened once, as in a mount */

        for (uint64_t block = 0; block < layer.count; block++) {
                layer.states[block] = block % 2 ? MODEL_DATA : MODEL_ZERO;
                layer.bytes[block * 4096] = 1;
        }
        point_model_apply(&point, &layer, 0);
        write_point(&f, point.name, NULL, 1, POINT_FULL, point.size, &layer, 1);
        check_point(&f, &point, &point);
        point_model_clear(&point);
        layer_model_clear(&layer);
        fixture_clear(&f);
}

static void extents_join_over_the_ends_of_regions(void) {
        LayerModel layer = layer_model_new((UINT64_C(5) << 30) + 100, 65536, "lz4");
        const uint64_t wide = UINT64_C(2) << 30, data = wide - 65536;
        Fixture f = fixture();
        Reason reason = REASON_INIT;
        ChainExtent extents[3];
        char name[POINT_NAME_MAX];
        ChainView *view;
        Chain *chain;

        point_model_name(0, name);
        memset(layer.states, MODEL_ZERO, layer.count);
        for (uint64_t start = data; start < wide + 65536; start += 65536) {
                layer.states[start / 65536] = MODEL_DATA;
                layer.bytes[start] = 1;
        }
        write_point(&f, name, NULL, 1, POINT_FULL, layer.disk_size, &layer, 1);
        CHECK_INT(chain_open(f.vm, name, "vda", &chain, &reason), 0);
        for (unsigned i = 0; i < 3; i++)
                CHECK_INT(chain_next_extent(chain, i > 0 ? extents[i - 1].start + extents[i - 1].length : 0, &extents[i],
                                            &reason),
                          0);
        CHECK_INT(extents[0].length, data);
        CHECK_INT(extents[0].state, EXTENT_ZERO);
        CHECK_INT(extents[1].length, 131072);
        CHECK_INT(extents[1].state, EXTENT_DATA);
        CHECK_INT(extents[2].start + extents[2].length, layer.disk_size);
        CHECK_INT(extents[2].state, EXTENT_ZERO);
        CHECK_INT(chain_is_zero(chain, wide + 65536, 1 << 20), 1);
        CHECK_INT(chain_view_whole(chain, &view, &reason), 0);
        CHECK_INT(chain_view_seek(view, 5, SEEK_DATA), data);
        CHECK_INT(chain_view_seek(view, data, SEEK_HOLE), wide + 65536);
        CHECK_INT(chain_view_seek(view, wide + 65536, SEEK_DATA), -ENXIO);
        chain_view_free(view);
        layer_model_clear(&layer);
        fixture_clear(&f);
}

/* ---- damage ---- */

/* Three points of 64 KiB; the newest has block 0, the middle one block 1, the oldest all 16. */
static void make_three_points(Fixture *f, PointModel points[static 3]) {
        for (unsigned i = 0; i < 3; i++) {
                LayerModel layer = layer_model_new(65536, 4096, "lz4");

                for (unsigned block = 0; block < 16; block++)
                        if (i == 0 || block == 2 - i) {
                                layer.states[block] = MODEL_DATA;
                                random_bytes(layer.bytes + block * 4096, 4096);
                        }
                points[i] = point_model_new(i, 65536, i > 0 ? &points[i - 1] : NULL);
                point_model_apply(&points[i], &layer, i);
                write_point(f, points[i].name, i > 0 ? points[i - 1].name : NULL, i + 1,
                            i > 0 ? POINT_INCREMENTAL : POINT_FULL, 65536, &layer, 1);
                layer_model_clear(&layer);
        }
}

static void point_path(const PointModel *point, bool layer, char path[static 128]) {
        snprintf(path, 128, layer ? "data/%s.9f3c21aa/vda-0.layer" : "points/%s.json", point->name);
}

/* Changes a byte of a file, counted from its end where offset is negative; 0: deletes it. */
static void harm(Fixture *f, const PointModel *point, bool layer, int offset) {
        char path[128], byte;

        point_path(point, layer, path);
        if (offset == 0)
                CHECK_INT(unlinkat(vm_fd(f->vm), path, 0), 0);
        else {
                CLEANUP(close_fd) int fd = openat(vm_fd(f->vm), path, O_RDWR);

                CHECK(lseek(fd, offset, offset < 0 ? SEEK_END : SEEK_SET) >= 0);
                CHECK_INT(read(fd, &byte, 1), 1);
                byte ^= 1;
                CHECK_INT(lseek(fd, -1, SEEK_CUR) >= 0, 1);
                CHECK_INT(write(fd, &byte, 1), 1);
        }
}

/* Blocks below good can be read, the others cannot, and are nobody's or unreadable; the reason says so. */
static void check_damaged(Fixture *f, const PointModel *point, unsigned good, const char *damage, const char *words) {
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        Reason reason = REASON_INIT;
        uint8_t buffer[65536];
        ChainExtent extent;

        CHECK_INT(chain_open(f->vm, point->name, "vda", &chain, &reason), 0);
        if (damage)
                CHECK(chain_damage(chain) && strstr(chain_damage(chain), damage));
        else
                CHECK(!chain_damage(chain));
        for (unsigned block = 0; block < 16; block++) {
                int rc = chain_read(chain, buffer, 4096, block * 4096, &reason);

                CHECK_INT(rc, block < good ? 0 : -EIO);
                if (rc == 0)
                        CHECK(memcmp(buffer, point->values + block * 4096, 4096) == 0);
                else
                        CHECK_SAYS(reason, words);
                CHECK_INT(chain_extent_at(chain, block * 4096, &extent, &reason), 0);
                CHECK(extent.state == EXTENT_DATA || (extent.state == EXTENT_UNREADABLE && block >= good));
        }
        CHECK_INT(chain_read(chain, buffer, sizeof buffer, 0, &reason), -EIO);
        CHECK_INT(chain_is_zero(chain, 0, 65536), 0);
}

static void damage_of_an_ancestor_costs_what_it_held(void) {
        static const struct {
                unsigned point;
                bool layer;
                int offset;
                unsigned good; /* blocks of the newest point that are still there */
                const char *damage, *words;
        } cases[] = {
                { 0, false, 0, 2, "2026-11-01T000000Z", "2026-11-01T000000Z" },   /* the manifest is gone … */
                { 0, false, 60, 2, "2026-11-01T000000Z", "2026-11-01T000000Z" },  /* … or damaged */
                { 1, false, 0, 1, "2026-11-01T000001Z", "2026-11-01T000001Z" },
                { 0, true, 0, 2, NULL, "2026-11-01T000000Z" },                    /* the layer is gone … */
                { 1, true, 0, 1, NULL, "2026-11-01T000001Z" },
                { 1, true, 3, 1, NULL, "2026-11-01T000001Z" },                    /* … its header is damaged … */
                { 1, true, -3, 1, NULL, "2026-11-01T000001Z" },                   /* … its footer … */
                { 0, true, -110, 2, NULL, "index page" },                         /* … or its only index page */
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                Fixture f = fixture();
                PointModel points[3];

                make_three_points(&f, points);
                harm(&f, &points[cases[i].point], cases[i].layer, cases[i].offset);
                check_damaged(&f, &points[2], cases[i].good, cases[i].damage, cases[i].words);
                for (unsigned p = 0; p < 3; p++)
                        point_model_clear(&points[p]);
                fixture_clear(&f);
        }
}

static void a_damaged_block_costs_that_block(void) {
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        Fixture f = fixture();
        Reason reason = REASON_INIT;
        PointModel points[3];
        uint8_t buffer[4096];

        make_three_points(&f, points);
        harm(&f, &points[1], true, 300); /* in its only block */
        CHECK_INT(chain_open(f.vm, points[2].name, "vda", &chain, &reason), 0);
        for (unsigned block = 0; block < 16; block++)
                CHECK_INT(chain_read(chain, buffer, 4096, block * 4096, &reason), block == 1 ? -EIO : 0);
        CHECK_SAYS(reason, "block 1 ");
        CHECK_SAYS(reason, "vms/vm1/data/2026-11-01T000001Z.9f3c21aa/vda-0.layer");
        for (unsigned p = 0; p < 3; p++)
                point_model_clear(&points[p]);
        chain = chain_unref(chain);
        fixture_clear(&f);
}

static void what_was_mended_is_read_again(void) {
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        Fixture f = fixture();
        Reason reason = REASON_INIT;
        PointModel points[3];
        char path[128], away[160];
        uint8_t buffer[4096];

        make_three_points(&f, points);
        point_path(&points[0], true, path);
        snprintf(away, sizeof away, "%s-away", path);
        CHECK_INT(renameat(vm_fd(f.vm), path, vm_fd(f.vm), away), 0);
        CHECK_INT(chain_open(f.vm, points[2].name, "vda", &chain, &reason), 0);
        CHECK_INT(chain_read(chain, buffer, 4096, 40960, &reason), -EIO);
        CHECK_INT(renameat(vm_fd(f.vm), away, vm_fd(f.vm), path), 0);
        CHECK_INT(chain_read(chain, buffer, 4096, 40960, &reason), 0);
        CHECK(memcmp(buffer, points[2].values + 40960, 4096) == 0);
        for (unsigned p = 0; p < 3; p++)
                point_model_clear(&points[p]);
        chain = chain_unref(chain);
        fixture_clear(&f);
}

/* Three points; the middle one then says that another is its parent, in a manifest whose seal is right. */
static void a_chain_that_leads_back_or_nowhere_ends(void) {
        static const char *const parents[] = { "2026-11-01T000001Z", "2026-11-01T000002Z", "2026-10-01T000002Z", NULL };

        for (size_t i = 0; i < sizeof parents / sizeof *parents; i++) {
                CLEANUP(json_decrefp) json_t *manifest = NULL;
                Fixture f = fixture();
                Reason reason = REASON_INIT;
                PointModel points[3];
                char path[128];

                make_three_points(&f, points);
                point_path(&points[1], false, path);
                CHECK_INT(sealed_json_read(vm_fd(f.vm), path, &manifest, &reason), 0);
                (void) json_object_del(manifest, "checksum");
                CHECK_INT(json_object_set_new(manifest, "parent", parents[i] ? json_string(parents[i]) : json_null()), 0);
                CHECK_INT(sealed_json_replace(vm_fd(f.vm), path, manifest, &reason), 0);
                check_damaged(&f, &points[2], i == 2 ? 2 : 1, "2026-1", "2026-1");
                for (unsigned p = 0; p < 3; p++)
                        point_model_clear(&points[p]);
                fixture_clear(&f);
        }
}

/* ---- sharing, and what is printed ---- */

static void what_is_not_there_is_refused(void) {
        Fixture f = fixture();
        Reason reason = REASON_INIT;
        PointModel points[3];
        Chain *chain;

        make_three_points(&f, points);
        CHECK_INT(chain_open(f.vm, "2026-11-01T000009Z", "vda", &chain, &reason), -ENOENT);
        CHECK_INT(chain_open(f.vm, points[2].name, "vdb", &chain, &reason), -ENOENT);
        CHECK_SAYS(reason, "vdb");
        harm(&f, &points[2], false, 60);
        CHECK_INT(chain_open(f.vm, points[2].name, "vda", &chain, &reason), -EBADMSG);
        for (unsigned p = 0; p < 3; p++)
                point_model_clear(&points[p]);
        fixture_clear(&f);
}

static void the_same_disk_opened_twice_is_one_chain(void) {
        Chain *first, *second;
        Fixture f = fixture();
        Reason reason = REASON_INIT;
        PointModel points[3];

        make_three_points(&f, points);
        CHECK_INT(chain_open(f.vm, points[2].name, "vda", &first, &reason), 0);
        CHECK_INT(chain_open(f.vm, points[2].name, "vda", &second, &reason), 0);
        CHECK(first == second);
        CHECK_INT(chain_layer_count(first), 3);
        chain_unref(first);
        check_point(&f, &points[2], points);
        chain_unref(second);
        for (unsigned p = 0; p < 3; p++)
                point_model_clear(&points[p]);
        fixture_clear(&f);
}

static void the_map_is_text_and_json(void) {
        CLEANUP(json_decrefp) json_t *map = NULL;
        LayerModel layer = layer_model_new(65536 + 100, 4096, "lz4");
        Fixture f = fixture();
        Reason reason = REASON_INIT;
        char *text, *json, name[POINT_NAME_MAX];
        size_t text_length, json_length;
        ChainView *view;

        point_model_name(0, name);
        memset(layer.states, MODEL_ZERO, layer.count);
        for (unsigned block = 2; block < 4; block++) {
                layer.states[block] = MODEL_DATA;
                layer.bytes[block * 4096] = 1;
        }
        layer.states[5] = MODEL_UNREADABLE;
        layer.states[16] = MODEL_ABSENT;
        write_point(&f, name, NULL, 1, POINT_FULL, layer.disk_size, &layer, 1);
        CHECK_INT(point_image_open_disk(f.vm, name, "vda", &view, &reason), 0);
        CHECK_INT(chain_map_text(view, &text, &text_length, &reason), 0);
        CHECK_INT(strlen(text), text_length);
        CHECK(strstr(text, "8192                 8192                 data       2026-11-01T000000Z\n"));
        CHECK(strstr(text, "65536                100                  unreadable -\n"));
        CHECK_INT(chain_map_json(view, &json, &json_length, &reason), 0);
        map = json_loadb(json, json_length, 0, NULL);
        CHECK_INT(json_array_size(map), 6);
        CHECK_INT(json_integer_value(json_object_get(json_array_get(map, 1), "start")), 8192);
        CHECK(json_is_true(json_object_get(json_array_get(map, 1), "data")));
        CHECK(json_is_true(json_object_get(json_array_get(map, 0), "zero")));
        CHECK(json_is_true(json_object_get(json_array_get(map, 3), "unreadable")));
        CHECK_TEXT(json_string_value(json_object_get(json_array_get(map, 3), "point")), name);
        CHECK(json_is_null(json_object_get(json_array_get(map, 5), "point")));
        CHECK_INT(json_integer_value(json_object_get(json_array_get(map, 5), "length")), 100);
        free(text);
        free(json);
        chain_view_free(view);
        layer_model_clear(&layer);
        fixture_clear(&f);
}

int main(void) {
        RUN(random_histories_read_as_their_model);
        RUN(random_histories_over_several_regions_read_as_their_model);
        RUN(more_extents_than_a_wide_region_takes_are_all_told);
        RUN(extents_join_over_the_ends_of_regions);
        RUN(damage_of_an_ancestor_costs_what_it_held);
        RUN(a_damaged_block_costs_that_block);
        RUN(what_was_mended_is_read_again);
        RUN(a_chain_that_leads_back_or_nowhere_ends);
        RUN(what_is_not_there_is_refused);
        RUN(the_same_disk_opened_twice_is_one_chain);
        RUN(the_map_is_text_and_json);
        return unit_result();
}
