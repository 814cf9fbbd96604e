/* core/repository/native-vm.c - VMs of our own: their points are the files below points/. */
#include <errno.h>
#include <string.h>

#include "repository/manifest-json.h"
#include "repository/native.h"
#include "util/directory.h"
#include "util/text.h"

#define POINT_SUFFIX ".json"
#define POINTS_PATH_MAX (sizeof "points/.json" + POINT_NAME_MAX)

/* The name of the point whose manifest a file is; NULL where it is none. */
static const char *point_of_file(const char *file, char name[static POINT_NAME_MAX]) {
        size_t length = strlen(file), suffix = strlen(POINT_SUFFIX);

        if (length <= suffix || length - suffix >= POINT_NAME_MAX || strcmp(file + length - suffix, POINT_SUFFIX) != 0)
                return NULL;
        memcpy(name, file, length - suffix);
        name[length - suffix] = 0;
        return name;
}

static int see_newest(void *context, const char *file) {
        char name[POINT_NAME_MAX], *newest = context;

        if (point_of_file(file, name) && strcmp(name, newest) > 0 && point_name_is_valid(name))
                memcpy(newest, name, sizeof name);
        return 0;
}

static int native_newest_point(Vm *vm, char ret[static POINT_NAME_MAX], Reason *reterr) {
        char newest[POINT_NAME_MAX] = "";
        int rc = scan_directory(vm->fd, "points", see_newest, newest, reterr);

        if (rc < 0 && rc != -ENOENT)
                return fail_within(reterr, rc, "%s", vm->name);
        memcpy(ret, newest, sizeof newest);
        return 0;
}

static int native_list_points(Vm *vm, Strings *ret, Reason *reterr) {
        CLEANUP(strings_free) Strings names = { 0 };
        size_t kept = 0;
        bool sorted = true;
        int rc = list_directory(vm->fd, "points", &names, reterr);

        if (rc < 0 && rc != -ENOENT)
                return fail_within(reterr, rc, "%s", vm->name);
        for (size_t i = 0; i < names.count; i++) {
                char name[POINT_NAME_MAX], *file = names.items[i];

                if (point_of_file(file, name) && point_name_is_valid(name)) {
                        file[strlen(name)] = 0;
                        names.items[kept++] = file;
                        /* With the suffix they sorted otherwise: "…Z-02.json" before "…Z.json". */
                        sorted &= kept == 1 || strcmp(names.items[kept - 2], file) < 0;
                } else
                        free(file);
        }
        names.count = kept;
        if (!sorted)
                strings_sort(&names);
        *ret = names;
        names = (Strings) { 0 };
        return 0;
}

static void point_path(const char *name, char path[static POINTS_PATH_MAX]) {
        snprintf(path, POINTS_PATH_MAX, "points/%s.json", name);
}

static int native_read_manifest(Vm *vm, const char *name, Manifest **ret, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        CLEANUP(json_decrefp) json_t *object = NULL;
        char path[POINTS_PATH_MAX];
        char *place;
        int rc;

        point_path(name, path);
        rc = sealed_json_read(vm->fd, path, &object, reterr);
        if (rc == -ENOENT)
                return fail(reterr, rc, "%s has no point %s", vm->name, name);
        if (rc == -ELOOP || rc == -EISDIR || rc == -EINVAL || rc == -ENOTDIR) /* something else is in its place */
                rc = -EBADMSG;
        if (rc < 0)
                return fail_within(reterr, rc, "%s", vm->name);
        rc = manifest_from_json(object, name, &manifest, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "%s: %s", vm->name, path);
        /* Its data lies beside it, whatever the directory was called when it was written. */
        place = strdup(vm->name);
        if (!place)
                return fail_oom(reterr);
        free(manifest->vm);
        manifest->vm = STEAL_PTR(place);
        if (text_format(&place, "vms/%s/data/%s/", vm->name, manifest->capture) < 0)
                return fail_oom(reterr);
        manifest->place = place;
        *ret = STEAL_PTR(manifest);
        return 0;
}

static int native_identify_point(Vm *vm, const char *name, Identity *ret) {
        char path[POINTS_PATH_MAX];

        point_path(name, path);
        return identity_of_file(vm->fd, path, ret);
}

/* 0 where the manifest cannot be used. */
static uint32_t serial_of_point(Vm *vm, const char *name) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;

        return manifest_read(vm, name, &manifest, NULL) < 0 ? 0 : manifest->serial;
}

/* Serials grow with names: a search by halves, which a damaged manifest on its way ends. */
static const char *search_point(Vm *vm, const Strings *names, uint32_t serial) {
        size_t low = 0, high = names->count;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                uint32_t found = serial_of_point(vm, names->items[middle]);

                if (found == 0)
                        return NULL;
                if (found == serial)
                        return names->items[middle];
                if (found < serial)
                        low = middle + 1;
                else
                        high = middle;
        }
        return NULL;
}

static const char *scan_points(Vm *vm, const Strings *names, uint32_t serial) {
        for (size_t i = 0; i < names->count; i++) {
                if (serial > SERIAL_MAX && serial_stand_in(names->items[i]) != serial)
                        continue;
                /* What is damaged has a number made of its name. */
                if ((serial_of_point(vm, names->items[i]) ?: serial_stand_in(names->items[i])) == serial)
                        return names->items[i];
        }
        return NULL;
}

static int native_point_of_serial(Vm *vm, uint32_t serial, char ret[static POINT_NAME_MAX]) {
        CLEANUP(strings_free) Strings names = { 0 };
        const char *found = NULL;
        int rc = native_list_points(vm, &names, NULL);

        if (rc < 0)
                return rc;
        if (serial <= SERIAL_MAX)
                found = search_point(vm, &names, serial);
        if (!found)
                found = scan_points(vm, &names, serial);
        if (!found)
                return -ESTALE;
        snprintf(ret, POINT_NAME_MAX, "%s", found);
        return 0;
}

static int native_vm_changed(Vm *vm, struct timespec *ret) {
        Identity identity;
        int rc = identity_of_file(vm->fd, "points", &identity);

        if (rc == 0)
                *ret = identity.modified;
        return rc;
}

static LayerStore *native_layers(const Vm *vm) {
        return vm->repository->layers;
}

const VmOps native_vm_ops = {
        .list_points = native_list_points,
        .newest_point = native_newest_point,
        .identify_point = native_identify_point,
        .point_of_serial = native_point_of_serial,
        .read_manifest = native_read_manifest,
        .changed = native_vm_changed,
        .layers = native_layers,
};
