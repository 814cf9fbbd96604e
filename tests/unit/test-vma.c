/* Archives in every legal shape show their disks byte for byte; what is wrong in one place is refused in words, or is an
 * error for that range and no other. */
#include <errno.h>
#include <sched.h>

#include "extents.h"
#include "formats/format.h"
#include "vma-model.h"

#define PATH "vzdump-qemu-100-2023_11_14-22_13_20.vma"

static LayerStore *new_store(const TemporaryDirectory *directory) {
        char path[128];
        LayerStore *store;

        snprintf(path, sizeof path, "%s/cache", directory->path);
        CHECK_INT(layer_store_new(directory->fd, 64 << 20, &store), 0);
        CHECK_INT(layer_store_set_disk(store, path, 0), 0);
        return store;
}

/* As layer_extents(), once they are known. */
static int find_extents(Layer *layer, uint64_t start, uint64_t length, ExtentMap **ret, Reason *reason) {
        int rc;

        while ((rc = layer_extents(layer, start, length, ret, reason)) == -EAGAIN)
                sched_yield();
        return rc;
}

/* Every byte and every extent as the model has it. */
static void check_device(Layer *layer, const ModelDevice *device) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        CLEANUP(freep) uint8_t *buffer = malloc(device->size);
        Reason reason = REASON_INIT;
        uint64_t at = 0;

        CHECK_INT(layer_disk_size(layer), device->size);
        CHECK_INT(find_extents(layer, 0, device->size, &map, &reason), 0);
        for (size_t i = 0; i < extent_map_count(map); i++) {
                const Extent *extent = extent_map_get(map, i);

                CHECK_INT(extent->start, at);
                at += extent->length;
                if (extent->state == EXTENT_ZERO) {
                        CHECK(bytes_are_zero(device->bytes + extent->start, extent->length));
                        CHECK_INT(layer_read(layer, buffer, 1, extent->start, &reason), -EIO);
                        continue;
                }
                CHECK_INT(extent->state, EXTENT_DATA);
                CHECK_INT(layer_read(layer, buffer, extent->length, extent->start, &reason), 0);
                CHECK(memcmp(buffer, device->bytes + extent->start, extent->length) == 0);
                for (unsigned n = 0; n < 5; n++) {
                        uint64_t from = random_below(extent->length), length = 1 + random_below(extent->length - from);

                        CHECK_INT(layer_read(layer, buffer, length, extent->start + from, &reason), 0);
                        CHECK(memcmp(buffer, device->bytes + extent->start + from, length) == 0);
                }
        }
        CHECK_INT(at, device->size);
}

static void archives_of_any_shape_show_their_disks(void) {
        static const unsigned entries[] = { 59, 58, 1, 17 };

        for (unsigned round = 0; round < 24; round++) {
                TemporaryDirectory directory = temporary_directory();
                VmaModel model = vma_model_new(entries[round % 4]);
                LayerStore *store = new_store(&directory);
                LayerLocation location;
                Reason reason = REASON_INIT;

                model.in_order = round % 3 == 0;
                vma_model_add_device(&model, "drive-scsi0", 1 + random_below(8 << 20));
                vma_model_add_device(&model, "drive-efidisk0", 512 * (1 + random_below(1000)));
                vma_model_add_device(&model, "drive-virtio1", (1 + random_below(40)) * VMA_CLUSTER_SIZE);
                vma_model_make(&model);
                location = vma_model_save(&model, &directory, PATH, NULL);
                for (unsigned i = 1; i <= 3; i++) {
                        CLEANUP(layer_unrefp) Layer *layer = NULL;
                        char member[32];

                        snprintf(member, sizeof member, "device %u", i);
                        location.member = member;
                        CHECK_INT(layer_open(store, &location, &layer, &reason), 0);
                        check_device(layer, &model.devices[i]);
                }
                layer_store_free(store);
                vma_model_clear(&model);
                temporary_directory_clear(&directory);
        }
}

static VmaModel small_model(void) {
        VmaModel model = vma_model_new(59);

        model.in_order = true;
        vma_model_add_device(&model, "drive-scsi0", 200 * VMA_CLUSTER_SIZE);
        vma_model_make(&model);
        return model;
}

/* Looks for archives in a directory that has just this one; the reason where it is refused. */
static bool find_archive(const VmaModel *model, const char *path, Findings *findings, Reason *ret) {
        TemporaryDirectory directory = temporary_directory();
        LayerStore *store = new_store(&directory);
        FoundEntry entry = { .name = (char *) path };
        FoundDirectory found = { .store = store, .path = "", .entries = &entry, .entry_count = 1, .findings = findings };

        (void) vma_model_save(model, &directory, path, NULL);
        CHECK_INT(fstatat(directory.fd, path, &entry.st, 0), 0);
        CHECK_INT(format_named("vma")->find(&found, ret), 0);
        if (findings->refusal_count > 0)
                fail(ret, 0, "%s", findings->refusals[0].words);
        layer_store_free(store);
        temporary_directory_clear(&directory);
        return entry.claimed && findings->refusal_count == 0;
}

static void an_archive_tells_its_vm_its_disks_and_its_time(void) {
        VmaModel model = vma_model_new(59);
        Findings findings = { 0 };
        Reason reason = REASON_INIT;

        vma_model_add_device(&model, "drive-scsi0", 100000);
        vma_model_add_device(&model, "drive-tpmstate0-backup", 4 << 20);
        vma_model_add_device(&model, "vmstate", 300000);
        vma_model_make(&model);
        CHECK(find_archive(&model, PATH, &findings, &reason));
        CHECK_INT(findings.layer_count, 2);
        CHECK_TEXT(findings.layers[0].vm, "web1");
        CHECK_TEXT(findings.layers[0].vm_uuid, "5f0c2a5e-1111-4222-8333-444455556666");
        CHECK_TEXT(findings.layers[0].disk, "scsi0");
        CHECK_TEXT(findings.layers[0].point, PATH);
        CHECK_TEXT(findings.layers[1].disk, "tpmstate0");
        CHECK_INT(findings.layers[0].size, 100000);
        CHECK_INT(findings.layers[0].time.tv_sec, 1700000000);
        CHECK_INT(findings.kept_count, 2);
        CHECK_TEXT(findings.kept[0].name, "vmstate");
        CHECK_INT(findings.kept[0].length, 300000);
        CHECK_TEXT(findings.kept[1].name, "qemu-server.conf");
        CHECK_INT(findings.kept[1].length, sizeof MODEL_CONFIG - 1);
        findings_clear(&findings);
        vma_model_clear(&model);
}

static void a_vm_without_a_name_is_called_by_the_number_in_the_file_name(void) {
        VmaModel model = small_model();
        Findings findings = { 0 };
        Reason reason = REASON_INIT;
        uint8_t *at = memmem(model.bytes, model.header_size, "name: web1", 10);

        memcpy(at, "nome", 4);
        vma_model_md5(model.bytes, model.header_size, 32);
        CHECK(find_archive(&model, PATH, &findings, &reason));
        CHECK_TEXT(findings.layers[0].vm, "100");
        findings_clear(&findings);
        vma_model_clear(&model);
}

static void kept_files_are_read_without_holes(void) {
        TemporaryDirectory directory = temporary_directory();
        VmaModel model = vma_model_new(59);
        LayerStore *store = new_store(&directory);
        CLEANUP(layer_unrefp) Layer *ram = NULL, *config = NULL;
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        LayerLocation location;
        char text[sizeof MODEL_CONFIG] = "";
        uint8_t *buffer = malloc(300000);
        Reason reason = REASON_INIT;

        vma_model_add_device(&model, "vmstate", 300000);
        vma_model_make(&model);
        location = vma_model_save(&model, &directory, PATH, "device 1");
        CHECK_INT(layer_open(store, &location, &ram, &reason), 0);
        CHECK_INT(find_extents(ram, 0, 300000, &map, &reason), 0);
        CHECK_INT(extent_map_count(map), 1);
        CHECK_INT(extent_map_get(map, 0)->state, EXTENT_DATA);
        CHECK_INT(layer_read(ram, buffer, 300000, 0, &reason), 0);
        CHECK(memcmp(buffer, model.devices[1].bytes, 300000) == 0);
        location.member = "config 0";
        CHECK_INT(layer_open(store, &location, &config, &reason), 0);
        CHECK_INT(layer_disk_size(config), sizeof text - 1);
        CHECK_INT(layer_read(config, text, sizeof text - 1, 0, &reason), 0);
        CHECK_TEXT(text, MODEL_CONFIG);
        free(buffer);
        ram = layer_unref(ram);
        config = layer_unref(config);
        layer_store_free(store);
        vma_model_clear(&model);
        temporary_directory_clear(&directory);
}

/* What a header must not say: these bytes at this place; with the MD5 made to fit again or not. */
static void a_header_that_is_wrong_in_one_field_is_refused(void) {
        static const struct {
                size_t at;
                unsigned width; /* of the big-endian number */
                uint64_t value;
                bool sealed;
                const char *words;
        } wrong[] = {
                { 0, 4, 0x564d4145, true, "does not begin as a VMA archive" },
                { 4, 4, 2, true, "version 2" },
                { 24, 8, UINT64_C(1) << 63, true, "year 9999" },
                { 40, 4, 7, false, "MD5" },
                { 48, 4, VMA_HEADER_SIZE - 512, true, "names" },
                { 48, 4, 1u << 30, true, "names" },
                { 52, 4, UINT32_MAX, true, "names" },
                { 56, 4, VMA_HEADER_SIZE, true, "cannot have 12288 bytes" },
                { 56, 4, UINT32_MAX, true, "cannot have" },
                { 56, 4, 12801, true, "cannot have" },
                { 56, 4, 8 << 20, true, "cut off" },
                { VMA_CONFIG_NAMES, 4, 2, true, "configuration file 0 has no name" },
                { VMA_CONFIG_DATA, 4, UINT32_MAX, true, "configuration file 0" },
                { VMA_CONFIG_NAMES + 4, 4, 5, true, NULL }, /* half an entry is none */
                { VMA_DEVICES + VMA_DEVICE_SIZE, 4, 0, true, "device 1 has no name" },
                { VMA_DEVICES + VMA_DEVICE_SIZE, 4, 3, true, "device 1 has no name" },
                { VMA_DEVICES + VMA_DEVICE_SIZE + 8, 8, 0, true, "no devices" },
                { VMA_DEVICES + VMA_DEVICE_SIZE + 8, 8, UINT64_MAX, true, "device 1 (drive-scsi0) cannot have" },
                { VMA_DEVICES + VMA_DEVICE_SIZE + 8, 8, (UINT64_C(1) << 48) + 1, true, "device 1 (drive-scsi0) cannot" },
                { VMA_DEVICES + 9 * VMA_DEVICE_SIZE + 8, 8, 4096, true, "device 9 has no name" },
                { VMA_HEADER_SIZE + 3 + 5, 1, '/', true, "no name that can be used" },
                { VMA_HEADER_SIZE + 3, 1, '.', true, "no name that can be used" },
                { VMA_HEADER_SIZE + 3 + 5, 1, '\n', true, "no name that can be used" },
                { VMA_HEADER_SIZE + 3 + 5, 1, 0, true, "no name that can be used" },
        };

        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
                VmaModel model = small_model();
                Findings findings = { 0 };
                Reason reason = REASON_INIT;
                bool good;

                for (unsigned b = 0; b < wrong[i].width; b++)
                        model.bytes[wrong[i].at + b] = (uint8_t) (wrong[i].value >> 8 * (wrong[i].width - 1 - b));
                if (wrong[i].sealed)
                        vma_model_md5(model.bytes, min_u64(load_be32(model.bytes + 56), model.length), 32);
                good = find_archive(&model, PATH, &findings, &reason);
                CHECK_INT(good, !wrong[i].words);
                if (wrong[i].words)
                        CHECK_SAYS(reason, wrong[i].words);
                findings_clear(&findings);
                vma_model_clear(&model);
        }
}

static void two_devices_of_one_name_are_refused(void) {
        VmaModel model = vma_model_new(59);
        Findings findings = { 0 };
        Reason reason = REASON_INIT;

        vma_model_add_device(&model, "drive-scsi0", 4096);
        vma_model_add_device(&model, "drive-scsi0", 4096);
        vma_model_make(&model);
        CHECK(!find_archive(&model, PATH, &findings, &reason));
        CHECK_SAYS(reason, "two devices are named drive-scsi0");
        findings_clear(&findings);
        vma_model_clear(&model);
}

/* Clusters that can be read, of all; the others give EIO with these words, and are unreadable in the map. */
static size_t count_good(const VmaModel *model, const char *words) {
        TemporaryDirectory directory = temporary_directory();
        LayerStore *store = new_store(&directory);
        LayerLocation location = vma_model_save(model, &directory, PATH, "device 1");
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        uint8_t buffer[VMA_CLUSTER_SIZE];
        Reason reason = REASON_INIT;
        size_t good = 0;

        CHECK_INT(layer_open(store, &location, &layer, &reason), 0);
        for (uint64_t at = 0; at < model->devices[1].size; at += VMA_CLUSTER_SIZE) {
                CLEANUP(extent_map_freep) ExtentMap *map = NULL;
                int rc = find_extents(layer, at, VMA_CLUSTER_SIZE, &map, &reason);

                CHECK(rc >= 0);
                if (rc == 1) {
                        CHECK_INT(extents_total(map, EXTENT_UNREADABLE), VMA_CLUSTER_SIZE);
                        CHECK_INT(layer_read(layer, buffer, sizeof buffer, at, &reason), -EIO);
                        CHECK_SAYS(reason, words);
                        continue;
                }
                good++;
                for (size_t i = 0; i < extent_map_count(map); i++) {
                        const Extent *extent = extent_map_get(map, i);

                        if (extent->state == EXTENT_DATA)
                                CHECK_INT(layer_read(layer, buffer, extent->length, extent->start, &reason), 0);
                        else
                                memset(buffer, 0, extent->length);
                        CHECK(memcmp(buffer, model->devices[1].bytes + extent->start, extent->length) == 0);
                }
        }
        layer = layer_unref(layer);
        layer_store_free(store);
        temporary_directory_clear(&directory);
        return good;
}

static void an_extent_that_is_wrong_in_one_field_loses_what_it_held(void) {
        static const struct {
                size_t at;
                unsigned width;
                uint64_t value;
                bool sealed;
                size_t good; /* of 200 clusters, 59 in the first extent */
                const char *words;
        } wrong[] = {
                { 0, 4, 0x564d4146, true, 141, "no extent where one should begin" },
                { 4, 2, 1, true, 141, "no extent where one should begin" },
                { 6, 2, 3, true, 141, "should have 3 blocks" },
                { 6, 2, UINT16_MAX, true, 141, "should have 65535 blocks" },
                { 8, 4, 5, true, 141, "of another archive" },
                { 24, 4, 5, false, 141, "MD5" },
                { 40, 2, 0, true, 141, "its entries name" },
                { 42, 1, 1, true, 141, "bits that are not known" },
                { 43, 1, 0, true, 141, "its entries name" },
                { 43, 1, 9, true, 199, "no device has" },
                { 44, 4, UINT32_MAX, true, 199, "no device has" },
                { 44, 4, 200, true, 199, "no device has" },
                { 44, 4, 150, true, 198, "" }, /* 0 is missing, 150 is there twice */
        };

        for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
                VmaModel model = small_model();
                uint8_t *extent = model.bytes + model.header_size;

                for (unsigned b = 0; b < wrong[i].width; b++)
                        extent[wrong[i].at + b] = (uint8_t) (wrong[i].value >> 8 * (wrong[i].width - 1 - b));
                if (wrong[i].sealed)
                        vma_model_md5(extent, VMA_EXTENT_HEADER_SIZE, 24);
                CHECK_INT(count_good(&model, wrong[i].words), wrong[i].good);
                vma_model_clear(&model);
        }
}

static void a_missing_cluster_is_lost_alone(void) {
        VmaModel model = vma_model_new(58);

        model.lost = (int64_t) 1 << 32 | 77;
        vma_model_add_device(&model, "drive-scsi0", 200 * VMA_CLUSTER_SIZE);
        vma_model_make(&model);
        CHECK_INT(count_good(&model, "cluster 77 of drive-scsi0 is missing: the archive ends without it"), 199);
        vma_model_clear(&model);
}

static void a_cluster_that_is_there_twice_is_not_read(void) {
        VmaModel model = small_model();
        uint64_t again[] = { UINT64_C(1) << 32 | 42 };

        vma_model_extent(&model, again, 1);
        CHECK_INT(count_good(&model, "cluster 42 of drive-scsi0 is in it several times"), 199);
        vma_model_clear(&model);
}

static void of_an_archive_that_is_cut_off_the_rest_is_read(void) {
        VmaModel model = small_model();
        size_t whole = model.length, good, last = 0;

        for (model.length = model.header_size; model.length < whole; model.length += 1 + random_below(1 << 20)) {
                good = count_good(&model, "is missing");
                CHECK(good >= last && good <= 200);
                last = good;
        }
        CHECK(last > 100);
        model.length = whole;
        vma_model_clear(&model);
}

static void another_file_in_its_place_is_not_read(void) {
        TemporaryDirectory directory = temporary_directory();
        VmaModel model = small_model();
        LayerStore *store = new_store(&directory);
        LayerLocation location = vma_model_save(&model, &directory, PATH, "device 1");
        Layer *layer;
        Reason reason = REASON_INIT;

        location.seal++;
        CHECK_INT(layer_open(store, &location, &layer, &reason), -EIO);
        location.seal--;
        location.member = "device 2";
        CHECK_INT(layer_open(store, &location, &layer, &reason), -EBADMSG);
        CHECK_SAYS(reason, "has no device 2");
        location.member = "config 1";
        CHECK_INT(layer_open(store, &location, &layer, &reason), -EBADMSG);
        layer_store_free(store);
        vma_model_clear(&model);
        temporary_directory_clear(&directory);
}

/* Many extents: clusters of zeroes take nothing. */
static void the_map_of_a_large_archive_is_kept_for_the_next_mount(void) {
        TemporaryDirectory directory = temporary_directory();
        VmaModel model = vma_model_new(58);
        LayerLocation location;
        Strings names = { 0 };

        model.devices[1] = (ModelDevice) { "drive-scsi0", UINT64_C(58) * 1100 * VMA_CLUSTER_SIZE, NULL };
        model.device_count = 1;
        vma_model_header(&model);
        for (uint64_t first = 0; first < 58 * 1100; first += 58) {
                uint64_t start = model.length;

                vma_model_grow(&model, VMA_EXTENT_HEADER_SIZE);
                memcpy(model.bytes + start, VMA_EXTENT_MAGIC, 4);
                memset(model.bytes + start + 8, 0x5a, 16);
                for (uint64_t i = 0; i < 58; i++)
                        store_be64(model.bytes + start + 40 + i * 8, UINT64_C(1) << 32 | (first + i));
                vma_model_md5(model.bytes + start, VMA_EXTENT_HEADER_SIZE, 24);
        }
        location = vma_model_save(&model, &directory, PATH, "device 1");
        for (unsigned round = 0; round < 4; round++) {
                LayerStore *store = new_store(&directory);
                CLEANUP(layer_unrefp) Layer *layer = NULL;
                CLEANUP(extent_map_freep) ExtentMap *map = NULL;
                Reason reason = REASON_INIT;
                int rc;

                CHECK_INT(layer_open(store, &location, &layer, &reason), 0);
                rc = find_extents(layer, 0, model.devices[1].size, &map, &reason);
                CHECK_INT(rc, round == 2 ? -EIO : 0);
                if (rc == 0)
                        CHECK_INT(extents_total(map, EXTENT_ZERO), model.devices[1].size);
                else
                        CHECK_SAYS(reason, "the next mount makes it anew");
                layer = layer_unref(layer);
                layer_store_free(store);
                strings_free(&names);
                CHECK_INT(list_directory(directory.fd, "cache", &names, &reason), 0);
                CHECK_INT(names.count, round != 2);
                if (round == 1) { /* a bit of it changes: what that page told is not believed */
                        CLEANUP(close_fd) int cache = openat(directory.fd, "cache", O_RDONLY | O_DIRECTORY);
                        CLEANUP(close_fd) int fd = openat(cache, names.items[0], O_RDWR);

                        CHECK_INT(pwrite(fd, "x", 1, 3 * 4096 + 100), 1);
                }
        }
        strings_free(&names);
        vma_model_clear(&model);
        temporary_directory_clear(&directory);
}

int main(void) {
        RUN(archives_of_any_shape_show_their_disks);
        RUN(an_archive_tells_its_vm_its_disks_and_its_time);
        RUN(a_vm_without_a_name_is_called_by_the_number_in_the_file_name);
        RUN(kept_files_are_read_without_holes);
        RUN(a_header_that_is_wrong_in_one_field_is_refused);
        RUN(two_devices_of_one_name_are_refused);
        RUN(an_extent_that_is_wrong_in_one_field_loses_what_it_held);
        RUN(a_missing_cluster_is_lost_alone);
        RUN(a_cluster_that_is_there_twice_is_not_read);
        RUN(of_an_archive_that_is_cut_off_the_rest_is_read);
        RUN(another_file_in_its_place_is_not_read);
        RUN(the_map_of_a_large_archive_is_kept_for_the_next_mount);
        return unit_result();
}
