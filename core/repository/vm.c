#include "repository/vm.h"

#include <errno.h>
#include <string.h>

#include "codec/checksum.h"
#include "repository/backend.h"

static bool is_utf8(const char *text) {
        CLEANUP(json_decrefp) json_t *string = json_string(text);

        return string;
}

static bool name_is_valid(const char *name, size_t max) {
        size_t length = strnlen(name, max + 1);

        if (length == 0 || length > max || name[0] == '.' || name[0] == '-' || strchr(name, '/'))
                return false;
        for (const unsigned char *c = (const unsigned char *) name; *c; c++)
                if (*c < ' ' || *c == 0x7f)
                        return false;
        return is_utf8(name);
}

bool vm_name_is_valid(const char *name) {
        return name_is_valid(name, VM_NAME_MAX);
}

bool file_name_is_valid(const char *name) {
        return name_is_valid(name, 255);
}

bool vm_uuid_is_valid(const char *uuid) {
        uuid_t parsed;

        return uuid_parse(uuid, parsed) == 0;
}

uint32_t serial_stand_in(const char *name) {
        return (SERIAL_MAX + 1) | ((uint32_t) checksum(name, strlen(name)) & SERIAL_MAX);
}

int vm_open(Repository *repository, const char *name, Vm **ret, Reason *reterr) {
        CLEANUP(vm_freep) Vm *vm = calloc(1, sizeof *vm);
        int rc;

        if (!vm)
                return fail_oom(reterr);
        vm->repository = repository;
        vm->fd = -1;
        if (!vm_name_is_valid(name))
                return fail(reterr, -ENOENT, "there is no VM \"%s\"", name);
        snprintf(vm->name, sizeof vm->name, "%s", name);
        rc = repository->ops->open_vm(repository, vm, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(vm);
        return 0;
}

Vm *vm_free(Vm *vm) {
        if (!vm)
                return NULL;
        close_fd(&vm->fd);
        registration_clear(&vm->registration);
        free(vm->damage);
        free(vm->inside);
        free(vm);
        return NULL;
}

Repository *vm_repository(const Vm *vm) {
        return vm->repository;
}

const char *vm_name(const Vm *vm) {
        return vm->name;
}

const char *vm_uuid(const Vm *vm) {
        return vm->registration.uuid;
}

const char *vm_source(const Vm *vm) {
        return vm->registration.source;
}

const Strings *vm_include(const Vm *vm) {
        return &vm->registration.include;
}

const Strings *vm_exclude(const Vm *vm) {
        return &vm->registration.exclude;
}

const char *vm_damage(const Vm *vm) {
        return vm->damage;
}

uint32_t vm_serial(const Vm *vm) {
        return vm->registration.serial;
}

int vm_fd(const Vm *vm) {
        return vm->fd;
}

bool vm_is_captured(const Vm *vm) {
        return vm->registration.source && !vm->root;
}

int vm_list_points(Vm *vm, Strings *ret, Reason *reterr) {
        return vm->ops->list_points(vm, ret, reterr);
}

int vm_newest_point(Vm *vm, char ret[static POINT_NAME_MAX], Reason *reterr) {
        return vm->ops->newest_point(vm, ret, reterr);
}

int vm_identify_point(Vm *vm, const char *name, Identity *ret) {
        return point_name_is_valid(name) ? vm->ops->identify_point(vm, name, ret) : -ENOENT;
}

int vm_point_of_serial(Vm *vm, uint32_t serial, char ret[static POINT_NAME_MAX]) {
        return vm->ops->point_of_serial(vm, serial, ret);
}

int vm_changed(Vm *vm, struct timespec *ret) {
        return vm->ops->changed(vm, ret);
}

int vm_state_changed(Vm *vm, struct timespec *ret) {
        Identity identity;
        int rc = vm->fd < 0 ? -ENOENT : identity_of_file(vm->fd, "state.json", &identity);

        if (rc == -ENOENT)
                return vm_changed(vm, ret);
        if (rc == 0)
                *ret = identity.modified;
        return rc;
}

LayerStore *vm_layers(const Vm *vm) {
        return vm->ops->layers(vm);
}
