/* fs/mount/catalogue.h - finds VMs and points, by name as people ask and by serial as inode numbers do.
 *
 * By name the repository is asked each time, so that what another process or host changed is seen; what was read before
 * and is the same still, as its identity tells (identity.h), is not read again. By serial a bounded table answers, which
 * such finds fill; what it does not know is looked for in the repository, so that numbers handed out before (by an earlier
 * mount even) are always understood. What is found by serial may have been removed since.
 * Threads: any. Lock order: the table's lock is taken last and never held over I/O. */
#pragma once

#include <stdint.h>
#include <time.h>

#include "repository/manifest.h"
#include "repository/vm.h"
#include "util/cleanup.h"
#include "util/reason.h"

/* A Vm that many hold. */
typedef struct SharedVm {
        int references; /* atomic */
        Vm *vm;
        Identity identity; /* before it was read */
} SharedVm;

SharedVm *shared_vm_ref(SharedVm *vm);
SharedVm *shared_vm_unref(SharedVm *vm); /* always NULL */
DEFINE_CLEANUP(SharedVm, shared_vm_unref)

/* A point with its manifest, or one whose manifest cannot be used. Immutable. */
typedef struct Point {
        int references; /* atomic */
        SharedVm *vm;
        char name[POINT_NAME_MAX];
        uint32_t serial;    /* where damaged: serial_stand_in() */
        Manifest *manifest; /* NULL: damaged */
        Identity identity; /* before it was read */
} Point;

Point *point_ref(Point *point);
Point *point_unref(Point *point); /* always NULL */
DEFINE_CLEANUP(Point, point_unref)

typedef struct Catalogue Catalogue;

int catalogue_new(Repository *repository, Catalogue **ret);
Catalogue *catalogue_free(Catalogue *catalogue); /* always NULL */
DEFINE_CLEANUP(Catalogue, catalogue_free)

/* -ENOENT where there is none. A damaged manifest is logged, and no error. */
int catalogue_vm_named(Catalogue *catalogue, const char *name, SharedVm **ret);
int catalogue_point_named(Catalogue *catalogue, SharedVm *vm, const char *name, Point **ret);

/* Reads what the names of a directory stand for, several at a time, so that each is found quickly then. vm NULL: VMs; else
 * its points. Names of other things are passed over. */
void catalogue_prepare(Catalogue *catalogue, SharedVm *vm, const Strings *names);

/* -ESTALE where there is none. */
int catalogue_vm(Catalogue *catalogue, uint32_t serial, SharedVm **ret);
int catalogue_point(Catalogue *catalogue, SharedVm *vm, uint32_t serial, Point **ret);
