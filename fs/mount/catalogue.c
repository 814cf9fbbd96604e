#include "mount/catalogue.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "codec/checksum.h"
#include "log.h"
#include "mount/node.h"
#include "repository/point-name.h"
#include "util/parallel.h"

/* Direct-mapped: neighbouring serials have places of their own, so that the newest points of a VM, or a listing of all
 * of them, do not push each other out. A point takes about a kilobyte; a VM has a descriptor open. */
#define SLOTS 16384
#define NAMED_SLOTS 32768
#define PROBES 8  /* places where a name may stand, behind each other */
#define MANY 32   /* names that are worth starting threads for */
#define THREADS 8

struct Catalogue {
        Repository *repository;
        pthread_mutex_t lock; /* guards the slots */
        SharedVm *vms[SLOTS], *named_vms[NAMED_SLOTS];
        Point *points[SLOTS], *named_points[NAMED_SLOTS];
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

static Point *swap_point(Catalogue *catalogue, Point **slot, Point *point) {
        Point *old;

        pthread_mutex_lock(&catalogue->lock);
        old = *slot;
        *slot = point;
        pthread_mutex_unlock(&catalogue->lock);
        return old;
}

static SharedVm *swap_vm(Catalogue *catalogue, SharedVm **slot, SharedVm *vm) {
        SharedVm *old;

        pthread_mutex_lock(&catalogue->lock);
        old = *slot;
        *slot = vm;
        pthread_mutex_unlock(&catalogue->lock);
        return old;
}

static void forget_all(Catalogue *catalogue) {
        for (size_t i = 0; i < SLOTS; i++) {
                point_unref(swap_point(catalogue, &catalogue->points[i], NULL));
                shared_vm_unref(swap_vm(catalogue, &catalogue->vms[i], NULL));
        }
        for (size_t i = 0; i < NAMED_SLOTS; i++) {
                point_unref(swap_point(catalogue, &catalogue->named_points[i], NULL));
                shared_vm_unref(swap_vm(catalogue, &catalogue->named_vms[i], NULL));
        }
}

Catalogue *catalogue_free(Catalogue *catalogue) {
        forget_all(catalogue);
        pthread_mutex_destroy(&catalogue->lock);
        free(catalogue);
        return NULL;
}

static SharedVm **vm_slot(Catalogue *catalogue, uint32_t serial) {
        return &catalogue->vms[serial % SLOTS];
}

/* Where the VM of this name stands, or else may be put. With the lock held. */
static SharedVm **named_vm_slot(Catalogue *catalogue, const char *name) {
        size_t at = checksum(name, strlen(name)) % NAMED_SLOTS;

        for (size_t i = 0; i < PROBES; i++) {
                SharedVm **slot = &catalogue->named_vms[(at + i) % NAMED_SLOTS];

                if (!*slot || strcmp(vm_name((*slot)->vm), name) == 0)
                        return slot;
        }
        return &catalogue->named_vms[at];
}

static Point **point_slot(Catalogue *catalogue, uint32_t vm, uint32_t point) {
        return &catalogue->points[(vm * 2654435761u + point) % SLOTS];
}

/* The same for a point. */
static Point **named_point_slot(Catalogue *catalogue, const SharedVm *vm, const char *name) {
        size_t at = (vm_serial(vm->vm) * 2654435761u + checksum(name, strlen(name))) % NAMED_SLOTS;

        for (size_t i = 0; i < PROBES; i++) {
                Point **slot = &catalogue->named_points[(at + i) % NAMED_SLOTS];

                if (!*slot || (vm_serial((*slot)->vm->vm) == vm_serial(vm->vm) && strcmp((*slot)->name, name) == 0))
                        return slot;
        }
        return &catalogue->named_points[at];
}

static void keep_vm(Catalogue *catalogue, SharedVm *vm) {
        SharedVm **slot, *old = NULL;

        shared_vm_unref(swap_vm(catalogue, vm_slot(catalogue, vm_serial(vm->vm)), shared_vm_ref(vm)));
        if (vm_damage(vm->vm))
                return; /* it may be mended */
        pthread_mutex_lock(&catalogue->lock);
        slot = named_vm_slot(catalogue, vm_name(vm->vm));
        old = *slot;
        *slot = shared_vm_ref(vm);
        pthread_mutex_unlock(&catalogue->lock);
        shared_vm_unref(old);
}

static void keep_point(Catalogue *catalogue, Point *point) {
        Point **slot = point_slot(catalogue, vm_serial(point->vm->vm), point->serial), *old;

        point_unref(swap_point(catalogue, slot, point_ref(point)));
        if (!point->manifest)
                return; /* it may be mended */
        pthread_mutex_lock(&catalogue->lock);
        slot = named_point_slot(catalogue, point->vm, point->name);
        old = *slot;
        *slot = point_ref(point);
        pthread_mutex_unlock(&catalogue->lock);
        point_unref(old);
}

static int open_vm(Catalogue *catalogue, const char *name, SharedVm **ret) {
        CLEANUP(vm_freep) Vm *vm = NULL;
        Identity identity = { 0 };
        Reason reason = REASON_INIT;
        SharedVm *shared;
        int rc;

        (void) repository_identify_vm(catalogue->repository, name, &identity);
        rc = vm_open(catalogue->repository, name, &vm, &reason);
        if (rc == -EMFILE) { /* those that are remembered have the most descriptors */
                forget_all(catalogue);
                rc = vm_open(catalogue->repository, name, &vm, &reason);
        }
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
        *shared = (SharedVm) { .references = 1, .vm = STEAL_PTR(vm), .identity = identity };
        *ret = shared;
        return 0;
}

/* The VM, where it has been read and is the same still. */
static SharedVm *known_vm(Catalogue *catalogue, const char *name) {
        CLEANUP(shared_vm_unrefp) SharedVm *vm = NULL;
        Identity identity = { 0 };

        pthread_mutex_lock(&catalogue->lock);
        vm = *named_vm_slot(catalogue, name);
        if (vm)
                shared_vm_ref(vm);
        pthread_mutex_unlock(&catalogue->lock);
        if (!vm || strcmp(vm_name(vm->vm), name) != 0 ||
            repository_identify_vm(catalogue->repository, name, &identity) < 0 ||
            !identity_is_same(&identity, &vm->identity))
                return NULL;
        return STEAL_PTR(vm);
}

int catalogue_vm_named(Catalogue *catalogue, const char *name, SharedVm **ret) {
        SharedVm *vm;
        int rc;

        if (!vm_name_is_valid(name))
                return -ENOENT;
        vm = known_vm(catalogue, name);
        if (vm) {
                *ret = vm;
                return 0;
        }
        rc = open_vm(catalogue, name, &vm);
        if (rc < 0)
                return rc;
        keep_vm(catalogue, vm);
        *ret = vm;
        return 0;
}

static int find_vm(Catalogue *catalogue, uint32_t serial, SharedVm **ret) {
        CLEANUP(freep) char *name = NULL;
        CLEANUP(shared_vm_unrefp) SharedVm *vm = NULL;
        int rc = repository_vm_of_serial(catalogue->repository, serial, &name);

        if (rc == 0)
                rc = open_vm(catalogue, name, &vm);
        if (rc == -ENOENT || (rc == 0 && vm_serial(vm->vm) != serial))
                return -ESTALE;
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(vm);
        return 0;
}

int catalogue_vm(Catalogue *catalogue, uint32_t serial, SharedVm **ret) {
        SharedVm *vm;
        int rc;

        pthread_mutex_lock(&catalogue->lock);
        vm = *vm_slot(catalogue, serial);
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
        Identity identity = { 0 };
        Reason reason = REASON_INIT;
        Point *point;
        int rc;

        (void) vm_identify_point(vm->vm, name, &identity);
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
        point->identity = identity;
        *ret = point;
        return 0;
}

/* The point, where it has been read and is the same still. */
static Point *known_point(Catalogue *catalogue, SharedVm *vm, const char *name) {
        CLEANUP(point_unrefp) Point *point = NULL;
        Identity identity = { 0 };

        pthread_mutex_lock(&catalogue->lock);
        point = *named_point_slot(catalogue, vm, name);
        if (point)
                point_ref(point);
        pthread_mutex_unlock(&catalogue->lock);
        if (!point || point->vm != vm || strcmp(point->name, name) != 0 || vm_identify_point(vm->vm, name, &identity) < 0 ||
            !identity_is_same(&identity, &point->identity))
                return NULL;
        return STEAL_PTR(point);
}

int catalogue_point_named(Catalogue *catalogue, SharedVm *vm, const char *name, Point **ret) {
        Point *point;
        int rc;

        if (!point_name_is_valid(name))
                return -ENOENT;
        point = known_point(catalogue, vm, name);
        if (point) {
                *ret = point;
                return 0;
        }
        rc = load_point(vm, name, &point);
        if (rc < 0)
                return rc;
        keep_point(catalogue, point);
        *ret = point;
        return 0;
}

typedef struct Preparation {
        Catalogue *catalogue;
        SharedVm *vm;
        const Strings *names;
} Preparation;

static void prepare_one(void *context, size_t index) {
        const Preparation *preparation = context;
        const char *name = preparation->names->items[index];
        Catalogue *catalogue = preparation->catalogue;
        SharedVm *vm = preparation->vm;
        Point *point;
        bool known;

        pthread_mutex_lock(&catalogue->lock);
        known = vm ? *named_point_slot(catalogue, vm, name) != NULL : *named_vm_slot(catalogue, name) != NULL;
        pthread_mutex_unlock(&catalogue->lock);
        if (known)
                return; /* whether it is the same still will be seen */
        if (vm && catalogue_point_named(catalogue, vm, name, &point) == 0)
                point_unref(point);
        if (!vm && catalogue_vm_named(catalogue, name, &vm) == 0)
                shared_vm_unref(vm);
}

void catalogue_prepare(Catalogue *catalogue, SharedVm *vm, const Strings *names) {
        Preparation preparation = { catalogue, vm, names };

        if (names->count >= MANY && names->count <= SLOTS)
                parallel_for(names->count, THREADS, prepare_one, &preparation);
}

static int find_point(SharedVm *vm, uint32_t serial, Point **ret) {
        CLEANUP(point_unrefp) Point *point = NULL;
        char name[POINT_NAME_MAX];
        int rc = vm_point_of_serial(vm->vm, serial, name);

        if (rc == 0)
                rc = load_point(vm, name, &point);
        if (rc == -ENOENT || (rc == 0 && point->serial != serial))
                return -ESTALE;
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(point);
        return 0;
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
