#include "repository/foreign/foreign.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "codec/checksum.h"
#include "repository/foreign/root.h"
#include "util/text.h"
#include "util/uri.h"

#define SCHEME "dir://"
#define NAMES_SHOWN 10 /* in a message */

bool foreign_claims(const char *source) {
        return strncmp(source, SCHEME, strlen(SCHEME)) == 0;
}

static int make_source(const char *path, const char *inside, char **ret) {
        CLEANUP(freep) char *escaped_path = NULL, *escaped_name = NULL;

        if (uri_escape(path, &escaped_path) < 0 || uri_escape(inside, &escaped_name) < 0 ||
            text_format(ret, SCHEME "%s?vm=%s", escaped_path, escaped_name) < 0)
                return -ENOMEM;
        return 0;
}

/* The words of a source; *ret_inside: NULL where it names none. */
static int split_source(const char *source, char **ret_path, char **ret_inside, Reason *reterr) {
        CLEANUP(freep) char *path = NULL, *inside = NULL;
        const char *text = source + strlen(SCHEME), *query = strchr(text, '?');
        int rc = uri_unescape(text, query ? (size_t) (query++ - text) : strlen(text), &path);

        while (rc >= 0 && query) {
                CLEANUP(freep) char *name = NULL, *value = NULL;

                rc = uri_next_parameter(&query, &name, &value);
                if (rc <= 0)
                        break;
                if (strcmp(name, "vm") != 0 || inside)
                        return fail(reterr, -EBADMSG, "%s: unknown parameter \"%s\"", source, name);
                inside = STEAL_PTR(value);
        }
        if (rc == -ENOMEM)
                return fail_oom(reterr);
        if (rc < 0 || *path != '/')
                return fail(reterr, -EBADMSG, "%s is no absolute path of a directory", source);
        *ret_path = STEAL_PTR(path);
        *ret_inside = STEAL_PTR(inside);
        return 0;
}

/* The VM as it is now, in a collection that the caller unrefs. */
static int look_at_vm(Vm *vm, bool now, Collection **ret, const CollectedVm **ret_vm, Reason *reterr) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        const CollectedVm *found = NULL;
        int rc = foreign_root_look(vm->root, now, &collection, reterr);

        if (rc < 0)
                return rc == -ENOENT ? -EIO : rc; /* the VM is there, its directory is not */
        if (vm->inside)
                found = collection_find(collection, vm->inside);
        else if (collection->count == 1)
                found = &collection->vms[0];
        if (!found)
                return fail(reterr, -EIO, "%s: there is no VM %s in %s any more", vm->name, vm->inside ?: "alone",
                            foreign_root_path(vm->root));
        *ret = STEAL_PTR(collection);
        *ret_vm = found;
        return 0;
}

static int foreign_list_points(Vm *vm, Strings *ret, Reason *reterr) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        CLEANUP(strings_free) Strings names = { 0 };
        const CollectedVm *found = NULL;
        int rc = look_at_vm(vm, false, &collection, &found, reterr);

        for (size_t i = 0; rc == 0 && i < found->count; i++)
                rc = strings_add(&names, found->points[i]->name) < 0 ? fail_oom(reterr) : 0;
        if (rc < 0)
                return rc;
        *ret = names;
        names = (Strings) { 0 };
        return 0;
}

static int foreign_newest_point(Vm *vm, char ret[static POINT_NAME_MAX], Reason *reterr) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        const CollectedVm *found = NULL;
        int rc = look_at_vm(vm, false, &collection, &found, reterr);

        if (rc < 0)
                return rc;
        *ret = 0;
        if (found->count > 0)
                memcpy(ret, found->points[found->count - 1]->name, POINT_NAME_MAX);
        return 0;
}

/* Whether the point's own files are those that were found. */
static bool has_its_files(ForeignRoot *root, const Manifest *manifest) {
        int fd = layer_store_root(foreign_root_layers(root));

        for (size_t i = 0; i < manifest->disk_count; i++)
                for (size_t j = 0; j < manifest->disks[i].layer_count; j++) {
                        const ManifestLayer *layer = &manifest->disks[i].layers[j];
                        struct stat st;

                        if (fstatat(fd, layer->file, &st, AT_SYMLINK_NOFOLLOW) < 0 || found_seal(&st) != layer->seal)
                                return false;
                }
        return true;
}

static int foreign_read_manifest(Vm *vm, const char *name, Manifest **ret, Reason *reterr) {
        for (bool now = false;; now = true) {
                CLEANUP(collection_unrefp) Collection *collection = NULL;
                const CollectedVm *found = NULL;
                Manifest *manifest;
                int rc = look_at_vm(vm, now, &collection, &found, reterr);

                if (rc < 0)
                        return rc;
                manifest = collected_vm_find(found, name);
                if (!manifest)
                        return fail(reterr, -ENOENT, "%s has no point %s", vm->name, name);
                /* A file that is written to is no change of its directory. */
                if (!now && !has_its_files(vm->root, manifest))
                        continue;
                *ret = manifest_ref(manifest);
                return 0;
        }
}

static int foreign_identify_point(Vm *vm, const char *name, Identity *ret) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        int rc = foreign_read_manifest(vm, name, &manifest, NULL);

        if (rc < 0)
                return rc;
        *ret = (Identity) { .inode = checksum(manifest->capture, strlen(manifest->capture)), .size = manifest->serial };
        return 0;
}

static int foreign_point_of_serial(Vm *vm, uint32_t serial, char ret[static POINT_NAME_MAX]) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        const CollectedVm *found = NULL;
        const Manifest *manifest;
        int rc = look_at_vm(vm, false, &collection, &found, NULL);

        if (rc < 0)
                return rc;
        manifest = collected_vm_find_serial(found, serial);
        if (!manifest)
                return -ESTALE;
        memcpy(ret, manifest->name, POINT_NAME_MAX);
        return 0;
}

static int foreign_vm_changed(Vm *vm, struct timespec *ret) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        const CollectedVm *found = NULL;
        int rc = look_at_vm(vm, false, &collection, &found, NULL);

        if (rc == 0)
                *ret = found->count > 0 ? found->points[found->count - 1]->time : (struct timespec) { 0 };
        return rc;
}

static LayerStore *foreign_layers(const Vm *vm) {
        return foreign_root_layers(vm->root);
}

static const VmOps foreign_vm_ops = {
        .list_points = foreign_list_points,
        .newest_point = foreign_newest_point,
        .identify_point = foreign_identify_point,
        .point_of_serial = foreign_point_of_serial,
        .read_manifest = foreign_read_manifest,
        .changed = foreign_vm_changed,
        .layers = foreign_layers,
};

int foreign_vm_attach(Vm *vm, Reason *reterr) {
        CLEANUP(freep) char *path = NULL;
        int rc = split_source(vm->registration.source, &path, &vm->inside, reterr);

        if (rc == 0)
                rc = foreign_root_get(vm->repository, path, &vm->root, reterr);
        if (rc == 0)
                vm->ops = &foreign_vm_ops;
        return rc;
}

static int list_vms(Repository *repository, Strings *ret, Reason *reterr) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        CLEANUP(strings_free) Strings names = { 0 };
        int rc = foreign_root_look(repository->foreign, false, &collection, reterr);

        for (size_t i = 0; rc == 0 && i < collection->count; i++)
                rc = strings_add(&names, collection->vms[i].name) < 0 ? fail_oom(reterr) : 0;
        if (rc < 0)
                return rc;
        *ret = names;
        names = (Strings) { 0 };
        return 0;
}

static int open_vm(Repository *repository, Vm *vm, Reason *reterr) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        const CollectedVm *found = NULL;
        int rc = foreign_root_look(repository->foreign, false, &collection, reterr);

        if (rc < 0)
                return rc;
        found = collection_find(collection, vm->name);
        if (!found)
                return fail(reterr, -ENOENT, "there is no VM %s in %s", vm->name, repository->path);
        vm->ops = &foreign_vm_ops;
        vm->root = repository->foreign;
        vm->inside = strdup(found->name);
        if (!vm->inside || text_format(&vm->registration.source, "%s%s%s", repository->path, *found->directory ? "/" : "",
                                       found->directory) < 0)
                return fail_oom(reterr);
        vm->registration.serial = found->serial;
        if (found->has_uuid)
                memcpy(vm->registration.uuid, found->uuid, sizeof vm->registration.uuid);
        return 0;
}

static int identify_vm(Repository *repository, const char *name, Identity *ret) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        const CollectedVm *found = NULL;
        int rc = foreign_root_look(repository->foreign, false, &collection, NULL);

        if (rc < 0)
                return rc;
        found = collection_find(collection, name);
        if (!found)
                return -ENOENT;
        *ret = (Identity) { .inode = found->serial, .size = checksum(found->uuid, strlen(found->uuid)),
                            .device = checksum(found->directory, strlen(found->directory)) };
        return 0;
}

static int vm_of_serial(Repository *repository, uint32_t serial, char **ret) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        const CollectedVm *found = NULL;
        int rc = foreign_root_look(repository->foreign, false, &collection, NULL);

        if (rc < 0)
                return rc;
        found = collection_find_serial(collection, serial);
        if (!found)
                return -ESTALE;
        *ret = strdup(found->name);
        return *ret ? 0 : -ENOMEM;
}

static int changed(Repository *repository, struct timespec *ret) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        int rc = foreign_root_look(repository->foreign, false, &collection, NULL);

        if (rc == 0)
                *ret = foreign_root_changed(repository->foreign);
        return rc;
}

static int unrecognised(Repository *repository, json_t *list, Reason *reterr) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        int rc = foreign_root_look(repository->foreign, false, &collection, reterr);

        return rc < 0 ? rc : foreign_root_refusals(repository->foreign, false, list, reterr);
}

static const RepositoryOps foreign_repository_ops = {
        .list_vms = list_vms,
        .open_vm = open_vm,
        .identify_vm = identify_vm,
        .vm_of_serial = vm_of_serial,
        .changed = changed,
        .unrecognised = unrecognised,
};

/* "no backup of a format that this version knows (notes.txt: …)", for a directory in which nothing was found. */
static int describe_emptiness(ForeignRoot *root, char **ret) {
        CLEANUP(json_decrefp) json_t *refusals = json_array();
        const json_t *first;

        if (!refusals || foreign_root_refusals(root, false, refusals, NULL) < 0)
                return -ENOMEM;
        first = json_array_get(refusals, 0);
        return text_format(ret, "no backup of a format that this version knows%s%s%s%s%s", first ? " (" : "",
                           first ? json_string_value(json_object_get(first, "path")) : "", first ? ": " : "",
                           first ? json_string_value(json_object_get(first, "reason")) : "",
                           json_array_size(refusals) > 1 ? "; …)" : first ? ")" : "");
}

int foreign_repository_load(Repository *repository, const char *path, Reason *reterr) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        CLEANUP(freep) char *emptiness = NULL;
        ForeignRoot *root;
        int rc;

        repository->ops = &foreign_repository_ops;
        rc = foreign_root_get(repository, repository->path, &root, reterr);
        if (rc == 0)
                rc = foreign_root_look(root, true, &collection, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "cannot open %s", path);
        if (collection->count > 0)
                return 0;
        if (describe_emptiness(root, &emptiness) < 0) {
                emptiness = NULL;
                return fail_oom(reterr);
        }
        return fail(reterr, -EINVAL,
                    "%s is not a virtbackupfs repository: make one with 'virtbackupfs init %s'; and it holds %s",
                    path, path, emptiness);
}

/* "vm1, vm2, …" */
static int list_names(const Collection *collection, char **ret) {
        size_t length;
        FILE *f = open_memstream(ret, &length);

        if (!f)
                return -ENOMEM;
        for (size_t i = 0; i < collection->count && i < NAMES_SHOWN; i++)
                fprintf(f, "%s%s", i > 0 ? ", " : "", collection->vms[i].name);
        if (collection->count > NAMES_SHOWN)
                fputs(", …", f);
        return fclose(f) == 0 ? 0 : -ENOMEM;
}

/* The VM that is meant by a name, which need not be its own where there is but one. */
static int choose_vm(const Collection *collection, const char *name, const char *path, const CollectedVm **ret,
                     Reason *reterr) {
        CLEANUP(freep) char *names = NULL;

        *ret = collection_find(collection, name);
        if (!*ret && collection->count == 1)
                *ret = &collection->vms[0];
        if (*ret)
                return 0;
        if (list_names(collection, &names) < 0)
                return fail_oom(reterr);
        return fail(reterr, -ENOENT, "cannot add %s: %s holds several VMs, and none of that name: %s", name, path, names);
}

int vm_add_directory(Repository *repository, const char *name, const char *directory, Reason *reterr) {
        CLEANUP(collection_unrefp) Collection *collection = NULL;
        CLEANUP(freep) char *path = realpath(directory, NULL);
        CLEANUP(freep) char *source = NULL;
        const CollectedVm *found = NULL;
        ForeignRoot *root;
        int rc;

        if (!path)
                return fail_errno(reterr, -errno, "cannot add %s: %s", name, directory);
        rc = foreign_root_get(repository, path, &root, reterr);
        if (rc == 0)
                rc = foreign_root_look(root, true, &collection, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "cannot add %s", name);
        if (collection->count == 0) {
                CLEANUP(freep) char *emptiness = NULL;

                if (describe_emptiness(root, &emptiness) < 0) {
                        emptiness = NULL;
                        return fail_oom(reterr);
                }
                return fail(reterr, -EINVAL, "cannot add %s: %s holds %s", name, path, emptiness);
        }
        rc = choose_vm(collection, name, path, &found, reterr);
        if (rc < 0)
                return rc;
        if (make_source(path, found->name, &source) < 0)
                return fail_oom(reterr);
        return vm_add(repository, name, found->uuid, source, NULL, reterr);
}
