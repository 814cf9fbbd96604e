/* core/repository/vm.h - a VM of a repository: its registration and the list of its points.
 *
 * vm.json: {"format": "virtbackupfs vm", "version", "features", "name", "uuid", "serial", "source" (the SOURCE of `add`,
 * null once forgotten), "include", "exclude" (names of disks; empty "include": all)}.
 * A VM is its UUID: whatever else has its name is another one.
 * Threads: a Vm is immutable; what it lists is read anew with every call. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "repository/identity.h"
#include "repository/point-name.h"
#include "repository/repository.h"

#define VM_NAME_MAX 200 /* bytes */

typedef struct Vm Vm;

/* A name that can be a directory: not empty, no slash, no control characters, does not begin with a dot or a
 * dash, valid UTF-8, at most VM_NAME_MAX bytes. */
bool vm_name_is_valid(const char *name);
#define VM_NAME_RULE "a name is 1 to 200 bytes of UTF-8, with no slash, and begins with neither a dot nor a dash"
/* The same for a file that a capture made, of at most 255 bytes. */
bool file_name_is_valid(const char *name);
bool vm_uuid_is_valid(const char *uuid);

/* The disks to capture, and of those the ones to leave out. */
typedef struct VmDisks {
        Strings include, exclude; /* the former empty: all */
} VmDisks;

/* Registers a VM (source NULL: makes one that is not captured), or again one that was forgotten or whose vm.json is damaged
 * (same UUID). -EEXIST where it is registered, or the name has points of another UUID, or the UUID is registered under
 * another name; -EBUSY while its lock is held; -EROFS. disks: NULL: all. */
int vm_add(Repository *repository, const char *name, const char *uuid, const char *source, const VmDisks *disks,
           Reason *reterr);

/* The same with a directory of other tools in the place of a source: the points of the VM in it that has this name, or of
 * the only one, are shown as this VM's. -ENOENT where it is neither, with the names of those that are there; -EINVAL: no
 * backup there. A VM may be registered so and be captured under another name. */
int vm_add_directory(Repository *repository, const char *name, const char *directory, Reason *reterr);

/* -ENOENT. A damaged vm.json is no error: vm_damage() tells, points stay readable. */
int vm_open(Repository *repository, const char *name, Vm **ret, Reason *reterr);
Vm *vm_free(Vm *vm); /* always NULL */
DEFINE_CLEANUP(Vm, vm_free)

Repository *vm_repository(const Vm *vm);
const char *vm_name(const Vm *vm);
const char *vm_uuid(const Vm *vm);    /* "" where damaged */
const char *vm_source(const Vm *vm);  /* NULL: forgotten, or damaged */
const Strings *vm_include(const Vm *vm);
const Strings *vm_exclude(const Vm *vm);
const char *vm_damage(const Vm *vm);  /* NULL, or why vm.json cannot be used */
uint32_t vm_serial(const Vm *vm);     /* 1 … SERIAL_MAX, of this repository; see serial_stand_in() where damaged */
int vm_fd(const Vm *vm);              /* of its directory in a repository of ours; else -1 */
bool vm_is_captured(const Vm *vm);    /* false: forgotten, damaged, or its points are another tool's */
LayerStore *vm_layers(const Vm *vm);  /* of the layers that its manifests name; lives as long as the repository */

/* Serials become parts of inode numbers, hence the bounds. The upper half of each range is for things whose
 * record is damaged: they get a number made of their name. */
#define SERIAL_BITS 22
#define SERIAL_MAX ((1u << (SERIAL_BITS - 1)) - 1)
uint32_t serial_stand_in(const char *name);

/* Ends the registration: source becomes null; a VM whose points are another tool's goes away, and they stay where they are.
 * With points: the VM goes away altogether, newest point first.
 * The caller holds the VM's lock and has taken care of the hypervisor. */
int vm_forget(Vm *vm, bool points, Reason *reterr);

/* The newest point's name; "" where there is none. Costs less than listing all. */
int vm_newest_point(Vm *vm, char ret[static POINT_NAME_MAX], Reason *reterr);

/* Tells whether the point is the same still, without reading it. -ENOENT. */
int vm_identify_point(Vm *vm, const char *name, Identity *ret);
/* The name of the point that has this serial, or had it when it was damaged. -ESTALE. */
int vm_point_of_serial(Vm *vm, uint32_t serial, char ret[static POINT_NAME_MAX]);
/* When points came or went; when a capture last told how it goes. */
int vm_changed(Vm *vm, struct timespec *ret);
int vm_state_changed(Vm *vm, struct timespec *ret);

/* Point names, sorted (which is by age), whether their manifests are good or not. strings_free(). */
int vm_list_points(Vm *vm, Strings *ret, Reason *reterr);
