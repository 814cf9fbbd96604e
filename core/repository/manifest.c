#include "repository/manifest.h"

#include <errno.h>
#include <string.h>

#include "formats/kept.h"
#include "repository/backend.h"
#include "repository/manifest-json.h"
#include "util/bytes.h"
#include "util/text.h"

#define POINTS_PATH_MAX (sizeof "points/.json" + POINT_NAME_MAX)

static const char *const kind_names[] = {
        [POINT_FULL] = "full",
        [POINT_INCREMENTAL] = "incremental",
        [POINT_DIFFERENTIAL] = "differential",
};

const char *point_kind_name(PointKind kind) {
        return kind_names[kind];
}

int manifest_new(Manifest **ret) {
        Manifest *manifest = calloc(1, sizeof *manifest);

        if (!manifest)
                return -ENOMEM;
        manifest->references = 1;
        *ret = manifest;
        return 0;
}

Manifest *manifest_ref(Manifest *manifest) {
        __atomic_add_fetch(&manifest->references, 1, __ATOMIC_RELAXED);
        return manifest;
}

static void clear_disk(ManifestDisk *disk) {
        for (size_t i = 0; i < disk->layer_count; i++) {
                free(disk->layers[i].format);
                free(disk->layers[i].file);
                free(disk->layers[i].member);
        }
        free(disk->layers);
        strings_free(&disk->images);
        free(disk->name);
        free(disk->why);
        free(disk->backing);
        free(disk->problem);
        free(disk->note);
}

Manifest *manifest_unref(Manifest *manifest) {
        if (!manifest || __atomic_sub_fetch(&manifest->references, 1, __ATOMIC_ACQ_REL) > 0)
                return NULL;
        for (size_t i = 0; i < manifest->disk_count; i++)
                clear_disk(&manifest->disks[i]);
        for (size_t i = 0; i < manifest->file_count; i++) {
                free(manifest->files[i].name);
                free(manifest->files[i].format);
                free(manifest->files[i].file);
                free(manifest->files[i].member);
        }
        free(manifest->disks);
        free(manifest->files);
        free(manifest->vm);
        free(manifest->vm_uuid);
        free(manifest->capture);
        free(manifest->place);
        free(manifest->parent);
        free(manifest->checkpoint);
        free(manifest->full_checkpoint);
        free(manifest);
        return NULL;
}

int manifest_read(Vm *vm, const char *name, Manifest **ret, Reason *reterr) {
        if (!point_name_is_valid(name))
                return fail(reterr, -ENOENT, "%s has no point \"%s\"", vm_name(vm), name);
        return vm->ops->read_manifest(vm, name, ret, reterr);
}

int manifest_commit(Vm *vm, const Manifest *manifest, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *again = NULL;
        CLEANUP(json_decrefp) json_t *object = manifest_to_json(manifest);
        char path[POINTS_PATH_MAX];
        int rc;

        if (!object)
                return fail_oom(reterr);
        if (!point_name_is_valid(manifest->name))
                return fail(reterr, -EINVAL, "\"%s\" is no name of a point", manifest->name);
        /* What could not be read again must not become visible. */
        rc = manifest_from_json(object, manifest->name, &again, reterr);
        if (rc < 0)
                return fail_within(reterr, rc == -ENOMEM ? rc : -EINVAL, "%s/%s", vm_name(vm), manifest->name);
        snprintf(path, sizeof path, "points/%s.json", manifest->name);
        rc = sealed_json_create(vm_fd(vm), path, object, reterr);
        return rc < 0 ? fail_within(reterr, rc, "%s", vm_name(vm)) : 0;
}

const ManifestDisk *manifest_find_disk(const Manifest *manifest, const char *name) {
        for (size_t i = 0; i < manifest->disk_count; i++)
                if (strcmp(manifest->disks[i].name, name) == 0)
                        return &manifest->disks[i];
        return NULL;
}

uint64_t manifest_disk_stored(const ManifestDisk *disk) {
        uint64_t sum = 0;

        for (size_t i = 0; i < disk->layer_count; i++)
                sum += disk->layers[i].length;
        return disk->has_stored ? disk->stored : sum;
}

uint64_t manifest_disk_allocated(const ManifestDisk *disk) {
        return __atomic_load_n(&disk->allocated, __ATOMIC_RELAXED);
}

void manifest_disk_set_allocated(const ManifestDisk *disk, uint64_t allocated) {
        __atomic_store_n(&((ManifestDisk *) disk)->allocated, allocated, __ATOMIC_RELAXED);
}

/* Disks are few and each sum fits into 63 bits; the whole stays below what JSON can say. */
uint64_t manifest_stored(const Manifest *manifest) {
        uint64_t sum = 0;

        for (size_t i = 0; i < manifest->disk_count; i++)
                sum = min_u64(sum + manifest_disk_stored(&manifest->disks[i]), INT64_MAX);
        for (size_t i = 0; i < manifest->file_count; i++)
                if (!manifest->files[i].linked)
                        sum = min_u64(sum + manifest->files[i].length, INT64_MAX);
        return sum;
}

int manifest_layer_location(const Manifest *manifest, const ManifestLayer *layer, LayerLocation *ret, Reason *reterr) {
        char *path;

        if (text_format(&path, "%s%s", manifest->place, layer->file) < 0)
                return fail_oom(reterr);
        *ret = (LayerLocation) {
                .format = layer->format, .path = path, .member = layer->member, .length = layer->length, .seal = layer->seal,
        };
        return 0;
}

bool manifest_disk_progress(Vm *vm, const Manifest *manifest, const ManifestDisk *disk, uint64_t *ret_done,
                            uint64_t *ret_total) {
        LayerLocation location;
        bool found = false;

        for (size_t i = 0; !found && i < disk->layer_count; i++) {
                if (manifest_layer_location(manifest, &disk->layers[i], &location, NULL) < 0)
                        return false;
                found = layer_progress(vm_layers(vm), &location, ret_done, ret_total) == 0;
                free((char *) location.path);
        }
        return found;
}

const ManifestFile *manifest_find_file(const Manifest *manifest, const char *name) {
        for (size_t i = 0; i < manifest->file_count; i++)
                if (strcmp(manifest->files[i].name, name) == 0)
                        return &manifest->files[i];
        return NULL;
}

/* As manifest_layer_location(). */
static int file_location(const Manifest *manifest, const ManifestFile *file, LayerLocation *ret, Reason *reterr) {
        char *path;

        if (text_format(&path, "%s%s", manifest->place, file->file ?: file->name) < 0)
                return fail_oom(reterr);
        *ret = (LayerLocation) {
                .format = file->format ?: "kept",
                .path = path,
                .member = file->member,
                .length = file->file_length ?: file->length,
                .seal = file->seal,
        };
        return 0;
}

int manifest_open_file(Vm *vm, const Manifest *manifest, const ManifestFile *file, Layer **ret, Reason *reterr) {
        LayerLocation location;
        int rc = file_location(manifest, file, &location, reterr);

        if (rc < 0)
                return rc;
        rc = layer_open(vm_layers(vm), &location, ret, reterr);
        free((char *) location.path);
        return rc < 0 ? fail_within(reterr, rc, "%s/%s", vm_name(vm), manifest->name) : 0;
}

int manifest_check_file(Vm *vm, const Manifest *manifest, const ManifestFile *file, const LayerCheck *check,
                        Reason *reterr) {
        LayerLocation location;
        int rc = file_location(manifest, file, &location, reterr);

        if (rc < 0)
                return rc;
        rc = layer_check(vm_layers(vm), &location, check, reterr);
        free((char *) location.path);
        return rc;
}

int manifest_check_disk(Vm *vm, const Manifest *manifest, const ManifestDisk *disk, const LayerCheck *check,
                        Reason *reterr) {
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < disk->layer_count; i++) {
                LayerLocation location;

                rc = manifest_layer_location(manifest, &disk->layers[i], &location, reterr);
                if (rc < 0)
                        return rc;
                rc = layer_check(vm_layers(vm), &location, check, reterr);
                free((char *) location.path);
        }
        return rc;
}

int manifest_read_file(Vm *vm, const Manifest *manifest, const char *name, char **ret, size_t *ret_length, Reason *reterr) {
        const ManifestFile *file = manifest_find_file(manifest, name);
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        CLEANUP(freep) char *content = NULL;
        size_t length;
        int rc;

        if (!file)
                return fail(reterr, -ENOENT, "%s/%s has no file %s", vm_name(vm), manifest->name, name);
        rc = manifest_open_file(vm, manifest, file, &layer, reterr);
        if (rc < 0)
                return rc;
        if (layer_disk_size(layer) > KEPT_LENGTH_MAX)
                return fail(reterr, -EFBIG, "%s/%s: %s is longer than %u bytes", vm_name(vm), manifest->name, name,
                            KEPT_LENGTH_MAX);
        length = (size_t) layer_disk_size(layer);
        content = malloc(length + 1);
        if (!content)
                return fail_oom(reterr);
        rc = layer_read_filled(layer, content, length, 0, reterr);
        if (rc < 0)
                return rc == -ENOMEM ? rc : -EIO;
        content[length] = 0;
        *ret = STEAL_PTR(content);
        *ret_length = length;
        return 0;
}
