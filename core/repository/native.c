/* core/repository/native.c - repositories of our own: the registrations and the serials. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "repository/backend.h"
#include "repository/document.h"
#include "repository/foreign/foreign.h"
#include "repository/foreign/root.h"
#include "repository/native.h"
#include "util/directory.h"
#include "util/file.h"
#include "util/io.h"

#define VM_PATH_MAX (sizeof "vms//" REGISTRATION_FILE + VM_NAME_MAX)

int native_repository_load(Repository *repository, const char *path, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *object = NULL;
        const char *text;
        uuid_t uuid;
        int rc;

        rc = sealed_json_read(repository->fd, REPOSITORY_FILE, &object, reterr);
        if (rc == -ENOENT)
                return rc;
        if (rc == 0)
                rc = document_check(object, REPOSITORY_KIND, REPOSITORY_VERSION, reterr);
        if (rc == 0)
                rc = json_take_string(object, "uuid", &text, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "cannot open the repository %s", path);
        if (uuid_parse(text, uuid) < 0)
                return fail(reterr, -EBADMSG, "cannot open the repository %s: " REPOSITORY_FILE ": \"uuid\" is no UUID",
                            path);
        uuid_unparse_lower(uuid, repository->uuid);
        repository->ops = &native_repository_ops;
        return 0;
}

static int native_list_vms(Repository *repository, Strings *ret, Reason *reterr) {
        CLEANUP(strings_free) Strings names = { 0 };
        size_t kept = 0;
        int rc = list_directory(repository->fd, "vms", &names, reterr);

        if (rc < 0)
                return fail_within(reterr, rc, "%s", repository->path);
        for (size_t i = 0; i < names.count; i++) {
                if (vm_name_is_valid(names.items[i]))
                        names.items[kept++] = names.items[i];
                else
                        free(names.items[i]);
        }
        names.count = kept;
        *ret = names;
        names = (Strings) { 0 };
        return 0;
}

static int native_open_vm(Repository *repository, Vm *vm, Reason *reterr) {
        char path[VM_PATH_MAX];
        Reason reason = REASON_INIT;
        int rc;

        vm->ops = &native_vm_ops;
        snprintf(path, sizeof path, "vms/%s", vm->name);
        vm->fd = open_beneath(repository->fd, path, O_RDONLY | O_DIRECTORY, 0);
        if (vm->fd == -ENOENT || vm->fd == -ENOTDIR || vm->fd == -ELOOP)
                return fail(reterr, -ENOENT, "there is no VM %s in the repository %s", vm->name, repository->path);
        if (vm->fd < 0)
                return fail_errno(reterr, vm->fd, "cannot open the VM %s", vm->name);

        rc = registration_read(vm->fd, vm->name, &vm->registration, &reason);
        if (rc == 0 && vm->registration.source && foreign_claims(vm->registration.source))
                rc = foreign_vm_attach(vm, &reason);
        if (rc == -ENOMEM)
                return fail_oom(reterr);
        if (rc < 0) {
                registration_clear(&vm->registration);
                vm->damage = strdup(reason.text);
                if (!vm->damage)
                        return fail_oom(reterr);
                vm->registration.serial = serial_stand_in(vm->name);
        }
        return 0;
}

static int native_identify_vm(Repository *repository, const char *name, Identity *ret) {
        char path[VM_PATH_MAX];

        snprintf(path, sizeof path, "vms/%s/" REGISTRATION_FILE, name);
        return identity_of_file(repository->fd, path, ret);
}

/* Whether the VM of this name has this serial now. */
static bool has_serial(Repository *repository, const char *name, uint32_t serial) {
        CLEANUP(vm_freep) Vm *vm = NULL;

        return vm_open(repository, name, &vm, NULL) == 0 && vm_serial(vm) == serial;
}

static int native_vm_of_serial(Repository *repository, uint32_t serial, char **ret) {
        CLEANUP(strings_free) Strings names = { 0 };
        CLEANUP(freep) char *name = NULL;
        char path[32];
        size_t length;
        int rc;

        /* The repository keeps whom it gave each serial to. */
        snprintf(path, sizeof path, "serials/%u", serial);
        if (read_file(repository->fd, path, VM_NAME_MAX, &name, &length, NULL) == 0 && vm_name_is_valid(name) &&
            has_serial(repository, name, serial)) {
                *ret = STEAL_PTR(name);
                return 0;
        }
        /* A damaged record: the serial is made of the name. */
        rc = native_list_vms(repository, &names, NULL);
        for (size_t i = 0; rc == 0 && i < names.count; i++)
                if (serial_stand_in(names.items[i]) == serial && has_serial(repository, names.items[i], serial)) {
                        *ret = STEAL_PTR(names.items[i]);
                        return 0;
                }
        return rc < 0 ? rc : -ESTALE;
}

static int native_changed(Repository *repository, struct timespec *ret) {
        Identity identity;
        int rc = identity_of_file(repository->fd, "vms", &identity);

        if (rc == 0)
                *ret = identity.modified;
        return rc;
}

/* What the directories have that VMs are registered with. One that cannot be looked into is the VM's trouble. */
static int native_unrecognised(Repository *repository, json_t *list, Reason *reterr) {
        CLEANUP(strings_free) Strings names = { 0 };
        int rc = native_list_vms(repository, &names, reterr);

        for (size_t i = 0; rc == 0 && i < names.count; i++) {
                CLEANUP(vm_freep) Vm *vm = NULL;
                CLEANUP(strings_free) Strings points = { 0 };

                if (vm_open(repository, names.items[i], &vm, NULL) == 0 && vm->root)
                        (void) vm_list_points(vm, &points, NULL);
        }
        return rc < 0 ? rc : foreign_unrecognised(repository, list, reterr);
}

const RepositoryOps native_repository_ops = {
        .list_vms = native_list_vms,
        .open_vm = native_open_vm,
        .identify_vm = native_identify_vm,
        .vm_of_serial = native_vm_of_serial,
        .changed = native_changed,
        .unrecognised = native_unrecognised,
};
