#include "repository/manifest.h"

#include <errno.h>
#include <string.h>

#include "codec/checksum.h"
#include "repository/manifest-json.h"
#include "util/bytes.h"

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
        }
        free(disk->layers);
        strings_free(&disk->images);
        free(disk->name);
        free(disk->why);
        free(disk->backing);
}

Manifest *manifest_unref(Manifest *manifest) {
        if (!manifest || __atomic_sub_fetch(&manifest->references, 1, __ATOMIC_ACQ_REL) > 0)
                return NULL;
        for (size_t i = 0; i < manifest->disk_count; i++)
                clear_disk(&manifest->disks[i]);
        for (size_t i = 0; i < manifest->file_count; i++)
                free(manifest->files[i].name);
        free(manifest->disks);
        free(manifest->files);
        free(manifest->vm);
        free(manifest->vm_uuid);
        free(manifest->capture);
        free(manifest->parent);
        free(manifest->checkpoint);
        free(manifest->full_checkpoint);
        free(manifest);
        return NULL;
}

static void point_path(const char *name, char path[static POINTS_PATH_MAX]) {
        snprintf(path, POINTS_PATH_MAX, "points/%s.json", name);
}

int manifest_read(Vm *vm, const char *name, Manifest **ret, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        CLEANUP(json_decrefp) json_t *object = NULL;
        char path[POINTS_PATH_MAX];
        char *place;
        int rc;

        if (!point_name_is_valid(name))
                return fail(reterr, -ENOENT, "%s has no point \"%s\"", vm_name(vm), name);
        point_path(name, path);
        rc = sealed_json_read(vm_fd(vm), path, &object, reterr);
        if (rc == -ENOENT)
                return fail(reterr, rc, "%s has no point %s", vm_name(vm), name);
        if (rc == -ELOOP || rc == -EISDIR || rc == -EINVAL || rc == -ENOTDIR) /* something else is in its place */
                rc = -EBADMSG;
        if (rc < 0)
                return fail_within(reterr, rc, "%s", vm_name(vm));
        rc = manifest_from_json(object, name, &manifest, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "%s: %s", vm_name(vm), path);
        /* Its data lies beside it, whatever the directory was called when it was written. */
        place = strdup(vm_name(vm));
        if (!place)
                return fail_oom(reterr);
        free(manifest->vm);
        manifest->vm = place;
        *ret = STEAL_PTR(manifest);
        return 0;
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
        point_path(manifest->name, path);
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
        return sum;
}

/* Disks are few and each sum fits into 63 bits; the whole stays below what JSON can say. */
uint64_t manifest_stored(const Manifest *manifest) {
        uint64_t sum = 0;

        for (size_t i = 0; i < manifest->disk_count; i++)
                sum = min_u64(sum + manifest_disk_stored(&manifest->disks[i]), INT64_MAX);
        for (size_t i = 0; i < manifest->file_count; i++)
                sum = min_u64(sum + manifest->files[i].length, INT64_MAX);
        return sum;
}

int manifest_layer_location(const Manifest *manifest, const ManifestLayer *layer, LayerLocation *ret, Reason *reterr) {
        char *path;

        if (asprintf(&path, "vms/%s/data/%s/%s", manifest->vm, manifest->capture, layer->file) < 0)
                return fail_oom(reterr);
        *ret = (LayerLocation) { .format = layer->format, .path = path, .length = layer->length, .seal = layer->seal };
        return 0;
}

int manifest_read_file(Vm *vm, const Manifest *manifest, const char *name, char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(freep) char *path = NULL;
        CLEANUP(freep) char *content = NULL;
        const ManifestFile *file = NULL;
        size_t length;
        int rc;

        for (size_t i = 0; i < manifest->file_count; i++)
                if (strcmp(manifest->files[i].name, name) == 0)
                        file = &manifest->files[i];
        if (!file)
                return fail(reterr, -ENOENT, "%s/%s has no file %s", vm_name(vm), manifest->name, name);
        if (asprintf(&path, "data/%s/%s", manifest->capture, name) < 0) {
                path = NULL;
                return fail_oom(reterr);
        }
        rc = read_file(vm_fd(vm), path, file->length, &content, &length, reterr);
        if (rc == -ENOMEM)
                return rc;
        if (rc < 0)
                return fail_within(reterr, -EIO, "%s/%s", vm_name(vm), manifest->name);
        if (length != file->length || checksum(content, length) != file->seal)
                return fail(reterr, -EIO, "%s/%s: %s is damaged: its checksum does not fit", vm_name(vm), manifest->name,
                            path);
        *ret = STEAL_PTR(content);
        *ret_length = length;
        return 0;
}
