#include "repository/manifest-json.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/kept.h"
#include "repository/document.h"
#include "util/timestamp.h"

#define MANIFEST_KIND "virtbackupfs point"
#define MANIFEST_VERSION 1

#define DISKS_MAX 1024
#define LAYERS_MAX 4096 /* of a disk */
#define IMAGES_MAX 4096
#define FILES_MAX 256
#define SEAL_DIGITS 16

/* A name that becomes one of a file: it cannot lead anywhere else. */
static int take_name(const json_t *object, const char *key, char **ret, Reason *reterr) {
        CLEANUP(freep) char *name = NULL;
        int rc = json_take_copy(object, key, &name, reterr);

        if (rc < 0)
                return rc;
        if (!file_name_is_valid(name))
                return fail(reterr, -EBADMSG, "\"%s\" is no good name: \"%s\"", key, name);
        *ret = STEAL_PTR(name);
        return 0;
}

static int take_kind(const json_t *object, PointKind *ret, Reason *reterr) {
        const char *text;
        int rc = json_take_string(object, "kind", &text, reterr);

        if (rc < 0)
                return rc;
        for (PointKind kind = POINT_FULL; kind <= POINT_DIFFERENTIAL; kind++)
                if (strcmp(text, point_kind_name(kind)) == 0) {
                        *ret = kind;
                        return 0;
                }
        return fail(reterr, -EBADMSG, "unknown kind \"%s\"", text);
}

static int take_seal(const json_t *object, uint64_t *ret, Reason *reterr) {
        const char *text;
        int rc = json_take_string(object, "seal", &text, reterr);

        if (rc < 0)
                return rc;
        if (strlen(text) != SEAL_DIGITS || strspn(text, "0123456789abcdef") != SEAL_DIGITS)
                return fail(reterr, -EBADMSG, "\"seal\" is no checksum");
        *ret = strtoull(text, NULL, 16);
        return 0;
}

/* A list of at most limit items, and zeroed memory for as many. */
static int take_list(const json_t *object, const char *key, size_t limit, size_t item_size, json_t **ret, void **ret_items,
                     Reason *reterr) {
        json_t *list = NULL;
        void *items;
        int rc = json_take_array(object, key, &list, reterr);

        if (rc < 0)
                return rc;
        if (json_array_size(list) > limit)
                return fail(reterr, -EBADMSG, "\"%s\" has more than %zu items", key, limit);
        items = calloc(json_array_size(list) + 1, item_size);
        if (!items)
                return fail_oom(reterr);
        *ret = list;
        *ret_items = items;
        return 0;
}

static int load_layer(const json_t *object, ManifestLayer *layer, Reason *reterr) {
        int rc = json_take_copy(object, "format", &layer->format, reterr);

        if (rc == 0)
                rc = take_name(object, "file", &layer->file, reterr);
        if (rc == 0)
                rc = json_take_size(object, "length", &layer->length, reterr);
        if (rc == 0)
                rc = take_seal(object, &layer->seal, reterr);
        return rc;
}

static int load_layers(const json_t *object, ManifestDisk *disk, Reason *reterr) {
        json_t *list, *item;
        uint64_t sum = 0;
        size_t i;
        int rc = take_list(object, "layers", LAYERS_MAX, sizeof *disk->layers, &list, (void **) &disk->layers, reterr);

        if (rc < 0)
                return rc;
        if (json_array_size(list) == 0)
                return fail(reterr, -EBADMSG, "\"layers\" is empty");
        json_array_foreach(list, i, item) {
                disk->layer_count = i + 1;
                rc = load_layer(item, &disk->layers[i], reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "layer %zu", i);
                if (__builtin_add_overflow(sum, disk->layers[i].length, &sum) || sum > INT64_MAX)
                        return fail(reterr, -EBADMSG, "the lengths of its layers are too great");
        }
        return 0;
}

static int load_images(const json_t *object, ManifestDisk *disk, Reason *reterr) {
        json_t *list = NULL, *item;
        size_t i;
        int rc = json_take_array(object, "images", &list, reterr);

        if (rc < 0)
                return rc;
        if (json_array_size(list) > IMAGES_MAX)
                return fail(reterr, -EBADMSG, "\"images\" has more than %d items", IMAGES_MAX);
        json_array_foreach(list, i, item) {
                if (!json_is_string(item))
                        return fail(reterr, -EBADMSG, "image %zu is no text", i);
                if (strings_add(&disk->images, json_string_value(item)) < 0)
                        return fail_oom(reterr);
        }
        return 0;
}

static int load_disk(const json_t *object, ManifestDisk *disk, Reason *reterr) {
        int rc = take_name(object, "name", &disk->name, reterr);

        if (rc == 0)
                rc = json_take_size(object, "size", &disk->size, reterr);
        if (rc == 0)
                rc = json_take_size(object, "allocated", &disk->allocated, reterr);
        if (rc == 0)
                rc = take_kind(object, &disk->kind, reterr);
        if (rc == 0)
                rc = json_take_optional_copy(object, "why", &disk->why, reterr);
        if (rc == 0)
                rc = json_take_optional_copy(object, "backing", &disk->backing, reterr);
        if (rc == 0 && json_object_get(object, "unreadable"))
                rc = json_take_size(object, "unreadable", &disk->unreadable, reterr);
        if (rc == 0)
                rc = load_images(object, disk, reterr);
        if (rc == 0)
                rc = load_layers(object, disk, reterr);
        if (rc == 0 && disk->allocated > disk->size)
                rc = fail(reterr, -EBADMSG, "more is allocated than its size");
        if (rc == 0 && disk->unreadable > disk->size)
                rc = fail(reterr, -EBADMSG, "more is unreadable than its size");
        return rc;
}

static int load_disks(const json_t *object, Manifest *manifest, Reason *reterr) {
        json_t *list, *item;
        size_t i;
        int rc = take_list(object, "disks", DISKS_MAX, sizeof *manifest->disks, &list, (void **) &manifest->disks, reterr);

        if (rc < 0)
                return rc;
        json_array_foreach(list, i, item) {
                ManifestDisk *disk = &manifest->disks[i];

                manifest->disk_count = i + 1;
                rc = load_disk(item, disk, reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "disk %zu", i);
                if (manifest_find_disk(manifest, disk->name) != disk)
                        return fail(reterr, -EBADMSG, "disk %s is there twice", disk->name);
                if (disk->kind != POINT_FULL && disk->kind != manifest->kind)
                        return fail(reterr, -EBADMSG, "disk %s is %s in a point that is %s", disk->name,
                                    point_kind_name(disk->kind), point_kind_name(manifest->kind));
        }
        return 0;
}

/* A long file is kept as a layer, whose seal is the file's. */
static int load_file_layer(const json_t *object, ManifestFile *file, Reason *reterr) {
        int rc = json_take_copy(object, "format", &file->format, reterr);

        if (rc == 0)
                rc = take_name(object, "file", &file->file, reterr);
        if (rc == 0)
                rc = json_take_size(object, "length", &file->file_length, reterr);
        if (rc == 0)
                rc = take_seal(object, &file->seal, reterr);
        return rc;
}

static int load_file(const json_t *object, ManifestFile *file, Reason *reterr) {
        int rc = take_name(object, "name", &file->name, reterr);

        if (rc == 0)
                rc = json_take_size(object, "length", &file->length, reterr);
        if (rc == 0)
                rc = take_seal(object, &file->seal, reterr);
        file->linked = json_is_true(json_object_get(object, "linked"));
        if (rc == 0 && json_object_get(object, "layer"))
                return load_file_layer(json_object_get(object, "layer"), file, reterr);
        if (rc == 0 && file->length > KEPT_LENGTH_MAX)
                rc = fail(reterr, -EBADMSG, "it is longer than %u bytes", KEPT_LENGTH_MAX);
        return rc;
}

static int load_files(const json_t *object, Manifest *manifest, Reason *reterr) {
        json_t *list, *item;
        size_t i;
        int rc = take_list(object, "files", FILES_MAX, sizeof *manifest->files, &list, (void **) &manifest->files, reterr);

        if (rc < 0)
                return rc;
        json_array_foreach(list, i, item) {
                manifest->file_count = i + 1;
                rc = load_file(item, &manifest->files[i], reterr);
                if (rc < 0)
                        return fail_within(reterr, rc, "file %zu", i);
                for (size_t j = 0; j < i; j++)
                        if (strcmp(manifest->files[i].name, manifest->files[j].name) == 0)
                                return fail(reterr, -EBADMSG, "file %s is there twice", manifest->files[i].name);
        }
        return 0;
}

/* Names and the place in the chain. A parent's name sorts before its child's, so no chain is a loop. */
static int load_identity(const json_t *object, Manifest *manifest, Reason *reterr) {
        const char *name, *time;
        uint64_t serial = 0;
        int rc = json_take_string(object, "name", &name, reterr);

        if (rc < 0)
                return rc;
        if (strcmp(name, manifest->name) != 0)
                return fail(reterr, -EBADMSG, "it is the manifest of another point, %s", name);
        rc = take_name(object, "vm", &manifest->vm, reterr);
        if (rc == 0)
                rc = json_take_copy(object, "vm_uuid", &manifest->vm_uuid, reterr);
        if (rc == 0)
                rc = json_take_size(object, "serial", &serial, reterr);
        if (rc == 0)
                rc = take_name(object, "capture", &manifest->capture, reterr);
        if (rc == 0)
                rc = take_kind(object, &manifest->kind, reterr);
        if (rc == 0)
                rc = json_take_string(object, "time", &time, reterr);
        if (rc == 0)
                rc = json_take_optional_copy(object, "parent", &manifest->parent, reterr);
        if (rc == 0)
                rc = json_take_optional_copy(object, "checkpoint", &manifest->checkpoint, reterr);
        if (rc == 0)
                rc = json_take_optional_copy(object, "full_checkpoint", &manifest->full_checkpoint, reterr);
        if (rc < 0)
                return rc;

        if (serial == 0 || serial > SERIAL_MAX)
                return fail(reterr, -EBADMSG, "\"serial\" is not from 1 to %u", SERIAL_MAX);
        manifest->serial = (uint32_t) serial;
        if (!vm_uuid_is_valid(manifest->vm_uuid))
                return fail(reterr, -EBADMSG, "\"vm_uuid\" is no UUID");
        if (timestamp_parse(time, &manifest->time) < 0)
                return fail(reterr, -EBADMSG, "\"time\" is no time");
        if (manifest->parent && (!point_name_is_valid(manifest->parent) || strcmp(manifest->parent, manifest->name) >= 0))
                return fail(reterr, -EBADMSG, "\"parent\" is no older point");
        if (manifest->kind != POINT_FULL && !manifest->parent)
                return fail(reterr, -EBADMSG, "it is %s but has no parent", point_kind_name(manifest->kind));
        return 0;
}

int manifest_from_json(const json_t *object, const char *name, Manifest **ret, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        int rc;

        if (manifest_new(&manifest) < 0)
                return fail_oom(reterr);
        snprintf(manifest->name, sizeof manifest->name, "%s", name);
        rc = document_check(object, MANIFEST_KIND, MANIFEST_VERSION, reterr);
        if (rc == 0)
                rc = load_identity(object, manifest, reterr);
        if (rc == 0)
                rc = load_disks(object, manifest, reterr);
        if (rc == 0)
                rc = load_files(object, manifest, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(manifest);
        return 0;
}

static json_t *optional_text(const char *text) {
        return text ? json_text(text) : json_null();
}

static json_t *seal_text(uint64_t seal) {
        return json_sprintf("%016" PRIx64, seal);
}

static json_t *dump_layer(const char *format, const char *file, uint64_t length, uint64_t seal) {
        return json_pack("{s:s, s:o, s:I, s:o}", "format", format, "file", json_text(file), "length", (json_int_t) length,
                         "seal", seal_text(seal));
}

static json_t *dump_layers(const ManifestDisk *disk) {
        CLEANUP(json_decrefp) json_t *list = json_array();

        for (size_t i = 0; i < disk->layer_count; i++) {
                const ManifestLayer *layer = &disk->layers[i];

                if (json_array_append_new(list, dump_layer(layer->format, layer->file, layer->length, layer->seal)) < 0)
                        return NULL;
        }
        return STEAL_PTR(list);
}

static json_t *dump_images(const ManifestDisk *disk) {
        CLEANUP(json_decrefp) json_t *list = json_array();

        for (size_t i = 0; i < disk->images.count; i++)
                if (json_array_append_new(list, json_text(disk->images.items[i])) < 0)
                        return NULL;
        return STEAL_PTR(list);
}

static json_t *dump_disks(const Manifest *manifest) {
        CLEANUP(json_decrefp) json_t *list = json_array();

        for (size_t i = 0; i < manifest->disk_count; i++) {
                const ManifestDisk *disk = &manifest->disks[i];
                json_t *item = json_pack("{s:o, s:I, s:I, s:I, s:s, s:o, s:o, s:o, s:o}", "name", json_text(disk->name),
                                         "size", (json_int_t) disk->size, "allocated", (json_int_t) disk->allocated,
                                         "unreadable", (json_int_t) disk->unreadable, "kind",
                                         point_kind_name(disk->kind), "why", optional_text(disk->why),
                                         "backing", optional_text(disk->backing),
                                         "images", dump_images(disk), "layers", dump_layers(disk));

                if (json_array_append_new(list, item) < 0)
                        return NULL;
        }
        return STEAL_PTR(list);
}

static json_t *dump_files(const Manifest *manifest) {
        CLEANUP(json_decrefp) json_t *list = json_array();

        for (size_t i = 0; i < manifest->file_count; i++) {
                const ManifestFile *file = &manifest->files[i];
                json_t *item = json_pack("{s:o, s:I, s:o}", "name", json_text(file->name), "length",
                                         (json_int_t) file->length, "seal", seal_text(file->seal));

                if (file->format && json_object_set_new(item, "layer",
                                                        dump_layer(file->format, file->file, file->file_length,
                                                                                  file->seal)) < 0)
                        return NULL;
                if (file->linked && json_object_set_new(item, "linked", json_true()) < 0)
                        return NULL;
                if (json_array_append_new(list, item) < 0)
                        return NULL;
        }
        return STEAL_PTR(list);
}

json_t *manifest_to_json(const Manifest *manifest) {
        CLEANUP(json_decrefp) json_t *object = document_new(MANIFEST_KIND, MANIFEST_VERSION);
        char time[TIMESTAMP_MAX];
        int bad = !object;

        timestamp_format(manifest->time, time);
        bad |= json_object_set_new(object, "name", json_string(manifest->name));
        bad |= json_object_set_new(object, "vm", optional_text(manifest->vm));
        bad |= json_object_set_new(object, "vm_uuid", optional_text(manifest->vm_uuid));
        bad |= json_object_set_new(object, "serial", json_integer(manifest->serial));
        bad |= json_object_set_new(object, "capture", optional_text(manifest->capture));
        bad |= json_object_set_new(object, "kind", json_string(point_kind_name(manifest->kind)));
        bad |= json_object_set_new(object, "time", json_string(time));
        bad |= json_object_set_new(object, "parent", optional_text(manifest->parent));
        bad |= json_object_set_new(object, "checkpoint", optional_text(manifest->checkpoint));
        bad |= json_object_set_new(object, "full_checkpoint", optional_text(manifest->full_checkpoint));
        bad |= json_object_set_new(object, "disks", dump_disks(manifest));
        bad |= json_object_set_new(object, "files", dump_files(manifest));
        return bad ? NULL : STEAL_PTR(object);
}
