#include "repository/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "codec/checksum.h"
#include "repository/point-name.h"
#include "repository/registration.h"

#define VM_PATH_MAX (sizeof "vms/" + VM_NAME_MAX)
#define POINT_SUFFIX ".json"

struct Vm {
        Repository *repository;
        char name[VM_NAME_MAX + 1];
        Registration registration; /* empty but for the serial where damaged */
        char *damage;
        int fd;
};

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
        char path[VM_PATH_MAX];
        Reason reason = REASON_INIT;
        int rc;

        if (!vm)
                return fail_oom(reterr);
        vm->repository = repository;
        vm->fd = -1;
        if (!vm_name_is_valid(name))
                return fail(reterr, -ENOENT, "there is no VM \"%s\"", name);
        snprintf(vm->name, sizeof vm->name, "%s", name);
        snprintf(path, sizeof path, "vms/%s", name);
        vm->fd = open_beneath(repository_fd(repository), path, O_RDONLY | O_DIRECTORY, 0);
        if (vm->fd == -ENOENT || vm->fd == -ENOTDIR || vm->fd == -ELOOP)
                return fail(reterr, -ENOENT, "there is no VM %s in the repository %s", name, repository_path(repository));
        if (vm->fd < 0)
                return fail_errno(reterr, vm->fd, "cannot open the VM %s", name);

        rc = registration_read(vm->fd, name, &vm->registration, &reason);
        if (rc == -ENOMEM)
                return fail_oom(reterr);
        if (rc < 0) {
                vm->damage = strdup(reason.text);
                if (!vm->damage)
                        return fail_oom(reterr);
                vm->registration.serial = serial_stand_in(name);
        }
        *ret = STEAL_PTR(vm);
        return 0;
}

Vm *vm_free(Vm *vm) {
        if (!vm)
                return NULL;
        close_fd(&vm->fd);
        registration_clear(&vm->registration);
        free(vm->damage);
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

static int compare_names(const void *a, const void *b) {
        return strcmp(*(char *const *) a, *(char *const *) b);
}

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

int vm_newest_point(Vm *vm, char ret[static POINT_NAME_MAX], Reason *reterr) {
        char newest[POINT_NAME_MAX] = "";
        int rc = scan_directory(vm->fd, "points", see_newest, newest, reterr);

        if (rc < 0 && rc != -ENOENT)
                return fail_within(reterr, rc, "%s", vm->name);
        memcpy(ret, newest, sizeof newest);
        return 0;
}

int vm_list_points(Vm *vm, Strings *ret, Reason *reterr) {
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
                qsort(names.items, kept, sizeof *names.items, compare_names);
        *ret = names;
        names = (Strings) { 0 };
        return 0;
}
