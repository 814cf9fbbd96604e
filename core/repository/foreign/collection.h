/* core/repository/foreign/collection.h - VMs and points made of what formats found.
 *
 * Points whose layers or parents hang together are of one VM; so are those that name the same UUID, or the same name where
 * no UUIDs speak against it; what names nothing is of the VM of its directory. Two VMs of one name are told apart by their
 * UUIDs or directories. Points are named by their times, or their parents' where those are later, so that a parent's name
 * sorts before its child's. What does not fit together (a lost parent, a loop, two layers for one disk) is a problem of
 * that disk alone. Names and serials depend on what is there, not on when it was found, and stay when more appears.
 * Threads: a Collection is immutable (but for manifests' allocated); references are counted atomically. */
#pragma once

#include "formats/found.h"
#include "repository/manifest.h"

typedef struct CollectedVm {
        char *name;
        char *uuid;      /* in lower case; one made of the name where the backups tell none */
        bool has_uuid;
        char *directory; /* below the root, of the first layer; "" for the root itself */
        uint32_t serial;
        Manifest **points; /* sorted by name */
        size_t count;
} CollectedVm;

typedef struct Collection {
        int references; /* atomic */
        CollectedVm *vms; /* sorted by name */
        size_t count;
} Collection;

/* root_name: what a VM in the root itself is called where nothing names it. previous: what was made of the same root before,
 * or NULL: what is in both keeps its serials, and its manifest where it is the same. -ENOMEM. */
int collection_new(const Findings *findings, const char *root_name, const Collection *previous, Collection **ret);
Collection *collection_ref(Collection *collection);
Collection *collection_unref(Collection *collection); /* always NULL */
DEFINE_CLEANUP(Collection, collection_unref)

const CollectedVm *collection_find(const Collection *collection, const char *name); /* NULL: none */
const CollectedVm *collection_find_serial(const Collection *collection, uint32_t serial);
Manifest *collected_vm_find(const CollectedVm *vm, const char *point); /* borrowed; NULL: none */
Manifest *collected_vm_find_serial(const CollectedVm *vm, uint32_t serial);
