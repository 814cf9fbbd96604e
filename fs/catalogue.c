#include "catalogue.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "node.h"
#include "repository/point-name.h"
#include "util/io.h"

/* Direct-mapped: neighbouring serials have places of their own, so that the newest points of a VM, or a listing of all
 * of them, do not push each other out. A VM has a descriptor open. */
#define VM_SLOTS 256
#define POINT_SLOTS 4096

struct Catalogue {
        Repository *repository;
        pthread_mutex_t lock; /* guards the slots */
        SharedVm *vms[VM_SLOTS];
        Point *points[POINT_SLOTS];
};

SharedVm *shared_vm_ref(SharedVm *vm) {
        __atomic_add_fetch(&vm->references, 1, __ATOMIC_RELAXED);
        return vm;
}

SharedVm *shared_vm_unref(SharedVm *vm) {
        if (vm && __atomic_sub_fetch(&vm->references, 1, __ATOMIC_ACQ_REL) == 0) {
                vm_free(vm->vm);
                free(vm);
        }
        return NULL;
}

Point *point_ref(Point *point) {
        __atomic_add_fetch(&point->references, 1, __ATOMIC_RELAXED);
        return point;
}

Point *point_unref(Point *point) {
        if (point && __atomic_sub_fetch(&point->references, 1, __ATOMIC_ACQ_REL) == 0) {
                manifest_unref(point->manifest);
                shared_vm_unref(point->vm);
                free(point);
        }
        return NULL;
}

int catalogue_new(Repository *repository, Catalogue **ret) {
        Catalogue *catalogue = calloc(1, sizeof *catalogue);

        if (!catalogue)
                return -ENOMEM;
        catalogue->repository = repository;
        pthread_mutex_init(&catalogue->lock, NULL);
        *ret = catalogue;
        return 0;
}

Catalogue *catalogue_free(Catalogue *catalogue) {
        for (size_t i = 0; i < POINT_SLOTS; i++)
                point_unref(catalogue->points[i]);
        for (size_t i = 0; i < VM_SLOTS; i++)
                shared_vm_unref(catalogue->vms[i]);
        pthread_mutex_destroy(&catalogue->lock);
        free(catalogue);
        return NULL;
}

static Point **point_slot(Catalogue *catalogue, uint32_t vm, uint32_t point) {
        return &catalogue->points[(vm * 2654435761u + point) % POINT_SLOTS];
}

static void keep_vm(Catalogue *catalogue, SharedVm *vm) {
        SharedVm **slot = &catalogue->vms[vm_serial(vm->vm) % VM_SLOTS], *old;

        pthread_mutex_lock(&catalogue->lock);
        old = *slot;
        *slot = shared_vm_ref(vm);
        pthread_mutex_unlock(&catalogue->lock);
        shared_vm_unref(old);
}

static void keep_point(Catalogue *catalogue, Point *point) {
        Point **slot = point_slot(catalogue, vm_serial(point->vm->vm), point->serial), *old;

        pthread_mutex_lock(&catalogue->lock);
        old = *slot;
        *slot = point_ref(point);
        pthread_mutex_unlock(&catalogue->lock);
        point_unref(old);
}

static int open_vm(Catalogue *catalogue, const char *name, SharedVm **ret) {
        CLEANUP(vm_freep) Vm *vm = NULL;
        Reason reason = REASON_INIT;
        SharedVm *shared;
        int rc;

        rc = vm_open(catalogue->repository, name, &vm, &reason);
        if (rc < 0) {
                if (rc != -ENOENT)
                        log_once(0, "%s", reason.text);
                return rc;
        }
        if (vm_damage(vm))
                log_once(0, "%s: %s", name, vm_damage(vm));
        shared = malloc(sizeof *shared);
        if (!shared)
                return -ENOMEM;
        *shared = (SharedVm) { .references = 1, .vm = STEAL_PTR(vm) };
        *ret = shared;
        return 0;
}

int catalogue_vm_named(Catalogue *catalogue, const char *name, SharedVm **ret) {
        SharedVm *vm;
        int rc;

        if (!vm_name_is_valid(name))
                return -ENOENT;
        rc = open_vm(catalogue, name, &vm);
        if (rc < 0)
                return rc;
        keep_vm(catalogue, vm);
        *ret = vm;
        return 0;
}

/* The name of the VM that was given this serial, as the repository keeps it. */
static int name_of_serial(Catalogue *catalogue, uint32_t serial, char **ret) {
        char path[32];
        size_t length;

        snprintf(path, sizeof path, "serials/%u", serial);
        return read_file(repository_fd(catalogue->repository), path, VM_NAME_MAX, ret, &length, NULL);
}

static int find_vm(Catalogue *catalogue, uint32_t serial, SharedVm **ret) {
        CLEANUP(freep) char *name = NULL;
        CLEANUP(strings_free) Strings names = { 0 };
        CLEANUP(shared_vm_unrefp) SharedVm *vm = NULL;
        int rc;

        if (name_of_serial(catalogue, serial, &name) == 0 && vm_name_is_valid(name) && open_vm(catalogue, name, &vm) == 0 &&
            vm_serial(vm->vm) == serial) {
                *ret = STEAL_PTR(vm);
                return 0;
        }
        /* A damaged record: the serial is made of the name. */
        rc = repository_list_vms(catalogue->repository, &names, NULL);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < names.count; i++) {
                if (serial_stand_in(names.items[i]) != serial)
                        continue;
                vm = shared_vm_unref(vm);
                if (open_vm(catalogue, names.items[i], &vm) == 0 && vm_serial(vm->vm) == serial) {
                        *ret = STEAL_PTR(vm);
                        return 0;
                }
        }
        return -ESTALE;
}

int catalogue_vm(Catalogue *catalogue, uint32_t serial, SharedVm **ret) {
        SharedVm *vm;
        int rc;

        pthread_mutex_lock(&catalogue->lock);
        vm = catalogue->vms[serial % VM_SLOTS];
        if (vm && vm_serial(vm->vm) == serial)
                shared_vm_ref(vm);
        else
                vm = NULL;
        pthread_mutex_unlock(&catalogue->lock);
        if (!vm) {
                rc = find_vm(catalogue, serial, &vm);
                if (rc < 0)
                        return rc;
                keep_vm(catalogue, vm);
        }
        *ret = vm;
        return 0;
}

/* Whether it says nothing about the manifest that it could not be read: a shortage here, or no manifest at all. */
static bool is_other_trouble(int rc) {
        return rc == -ENOENT || rc == -ENOMEM || rc == -EMFILE || rc == -ENFILE || rc == -EINTR;
}

static int load_point(SharedVm *vm, const char *name, Point **ret) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        Reason reason = REASON_INIT;
        Point *point;
        int rc;

        rc = manifest_read(vm->vm, name, &manifest, &reason);
        if (rc < 0) {
                if (is_other_trouble(rc))
                        return rc;
                log_once(vm_serial(vm->vm), "%s/%s: %s", vm_name(vm->vm), name, reason.text);
        }
        point = calloc(1, sizeof *point);
        if (!point)
                return -ENOMEM;
        point->references = 1;
        point->vm = shared_vm_ref(vm);
        memcpy(point->name, name, strlen(name) + 1);
        point->serial = manifest ? manifest->serial : serial_stand_in(name);
        point->manifest = STEAL_PTR(manifest);
        *ret = point;
        return 0;
}

int catalogue_point_named(Catalogue *catalogue, SharedVm *vm, const char *name, Point **ret) {
        Point *point;
        int rc;

        if (!point_name_is_valid(name))
                return -ENOENT;
        rc = load_point(vm, name, &point);
        if (rc < 0)
                return rc;
        keep_point(catalogue, point);
        *ret = point;
        return 0;
}

/* Serials grow with names: a search by halves, which a damaged manifest on its way ends. */
static int search_point(SharedVm *vm, const Strings *names, uint32_t serial, Point **ret) {
        size_t low = 0, high = names->count;

        while (low < high) {
                CLEANUP(point_unrefp) Point *point = NULL;
                size_t middle = low + (high - low) / 2;

                if (load_point(vm, names->items[middle], &point) < 0 || !point->manifest)
                        return -ESTALE;
                if (point->serial == serial) {
                        *ret = STEAL_PTR(point);
                        return 0;
                }
                if (point->serial < serial)
                        low = middle + 1;
                else
                        high = middle;
        }
        return -ESTALE;
}

static int scan_points(SharedVm *vm, const Strings *names, uint32_t serial, Point **ret) {
        for (size_t i = 0; i < names->count; i++) {
                CLEANUP(point_unrefp) Point *point = NULL;

                if (serial > SERIAL_MAX && serial_stand_in(names->items[i]) != serial)
                        continue;
                if (load_point(vm, names->items[i], &point) == 0 && point->serial == serial) {
                        *ret = STEAL_PTR(point);
                        return 0;
                }
        }
        return -ESTALE;
}

static int find_point(SharedVm *vm, uint32_t serial, Point **ret) {
        CLEANUP(strings_free) Strings names = { 0 };
        int rc;

        rc = vm_list_points(vm->vm, &names, NULL);
        if (rc < 0)
                return rc;
        rc = serial <= SERIAL_MAX ? search_point(vm, &names, serial, ret) : -ESTALE;
        return rc < 0 ? scan_points(vm, &names, serial, ret) : rc;
}

int catalogue_point(Catalogue *catalogue, SharedVm *vm, uint32_t serial, Point **ret) {
        Point **slot = point_slot(catalogue, vm_serial(vm->vm), serial), *point;
        int rc;

        pthread_mutex_lock(&catalogue->lock);
        point = *slot;
        if (point && point->serial == serial && vm_serial(point->vm->vm) == vm_serial(vm->vm))
                point_ref(point);
        else
                point = NULL;
        pthread_mutex_unlock(&catalogue->lock);
        if (!point) {
                rc = find_point(vm, serial, &point);
                if (rc < 0)
                        return rc;
                keep_point(catalogue, point);
        }
        *ret = point;
        return 0;
}
