/* fs/mount/tree.h - the mounted tree: what is in it, and under which names.
 *
 * It keeps nothing of its own: an Item is looked up in the catalogue by name or number and holds what it needs.
 * Threads: any; an Item belongs to one thread at a time. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "mount/catalogue.h"
#include "mount/completeness.h"
#include "mount/mount-options.h"
#include "mount/node.h"
#include "partitions/point-image.h"
#include "util/strings.h"

/* How often what is never cached was asked for lately; see attributes.c. */
typedef struct Rush {
        atomic_uint_fast64_t window;
        atomic_uint count;
} Rush;

typedef struct Tree {
        Repository *repository;
        Catalogue *catalogue;
        Completeness *completeness;
        const MountOptions *options;
        Rush rush;
} Tree;

typedef struct Item {
        Node node;
        SharedVm *vm; /* NULL for the root */
        Point *point; /* NULL for what is in no point */
        PartitionTable *table; /* of the disk that a partition is on; else NULL */
} Item;

void item_clear(Item *item);

/* Finds a thing by its inode number. -ESTALE where it is no more. */
int tree_item(Tree *tree, uint64_t number, Item *ret);

/* Finds a name in a directory. -ENOENT; -ENOTDIR; -EIO where the point is damaged. */
int tree_find(Tree *tree, const Item *parent, const char *name, Item *ret);

/* The directory that something is in; the root's is the root. */
int tree_parent(const Item *item, Item *ret);

/* What an image shows: a disk or a partition. What goes wrong is logged. */
int item_open_view(const Item *item, ChainView **ret);

/* The partitions of a disk in the same point. They are not waited for longer than that: where an archive has to be unpacked
 * first, there may be none yet. */
#define TREE_PARTITIONS_WAIT 2000 /* milliseconds */
int tree_find_partitions(const Item *item, const char *disk, unsigned patience_ms, PartitionTable **ret, Reason *reterr);

/* The names in a directory. The caller frees them with strings_free(). */
int tree_list(Tree *tree, const Item *directory, Strings *ret);

/* The target of a symbolic link: that of `latest`. -ENOENT where there is no point. */
int tree_link(const Item *item, char ret[static POINT_NAME_MAX]);

/* Only these have one; see item kinds. */
const ManifestDisk *item_disk(const Item *item);
const Partition *item_partition(const Item *item);
const ManifestFile *item_kept(const Item *item);

/* "vm1/2026-11-20T010203Z/vda", as messages have it. */
#define SUBJECT_MAX (VM_NAME_MAX + POINT_NAME_MAX + 260)
void item_subject(const Item *item, char ret[static SUBJECT_MAX]);
/* Says it once, and returns rc. */
int item_log_failure(const Item *item, int rc, const Reason *reason);
