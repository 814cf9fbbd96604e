#include "mount/tree.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "repository/point.h"
#include "util/patience.h"

#define INFO_NAME "info.json"
#define DOMAIN_NAME "domain.xml"
#define TRIGGER_NAME "capture"
#define LATEST_NAME "latest"
#define RAW_SUFFIX ".raw"
#define MAP_SUFFIX ".map"
#define CHANGES_SUFFIX ".changes"

void item_clear(Item *item) {
        partition_table_unref(item->table);
        point_unref(item->point);
        shared_vm_unref(item->vm);
        *item = (Item) { 0 };
}

const ManifestDisk *item_disk(const Item *item) {
        return &item->point->manifest->disks[item->node.index];
}

const Partition *item_partition(const Item *item) {
        return &item->table->partitions[item->node.partition];
}

const ManifestFile *item_kept(const Item *item) {
        if (item->node.index == NODE_DOMAIN)
                return manifest_find_file(item->point->manifest, DOMAIN_NAME);
        return &item->point->manifest->files[item->node.index];
}

void item_subject(const Item *item, char ret[static SUBJECT_MAX]) {
        const char *file = NULL;
        char partition[NAME_MAX + 1];

        if (item->node.kind == NODE_PARTITION && item->table) {
                partition_name(item_disk(item)->name, item_partition(item), partition, sizeof partition);
                file = partition;
        } else if (node_is_of_disk(item->node.kind))
                file = item_disk(item)->name;
        else if (item->node.kind == NODE_KEPT)
                file = item_kept(item)->name;
        else if (item->node.kind == NODE_INFO)
                file = INFO_NAME;
        snprintf(ret, SUBJECT_MAX, "%s%s%s%s%.255s", item->vm ? vm_name(item->vm->vm) : "/", item->point ? "/" : "",
                 item->point ? item->point->name : "", file ? "/" : "", file ?: "");
}

int item_log_failure(const Item *item, int rc, const Reason *reason) {
        char subject[SUBJECT_MAX];

        item_subject(item, subject);
        log_once(node_number(item->node), "%s: %s", subject, reason->text);
        return rc;
}

int item_open_view(const Item *item, ChainView **ret) {
        const char *point = item->point->name, *disk = item_disk(item)->name;
        Vm *vm = item->vm->vm;
        Reason reason = REASON_INIT;
        int rc = item->node.kind == NODE_PARTITION
                         ? point_image_open_partition(vm, point, disk, item_partition(item), ret, &reason)
                         : point_image_open_disk(vm, point, disk, ret, &reason);

        return rc < 0 ? item_log_failure(item, rc, &reason) : 0;
}

int tree_find_partitions(const Item *item, const char *disk, unsigned patience_ms, PartitionTable **ret, Reason *reterr) {
        CLEANUP(patience_unlimit) PatienceLimit limit;

        patience_limit(&limit, patience_ms);
        return partitions_find(item->vm->vm, item->point->name, disk, ret, reterr);
}

static int find_table(Item *item) {
        Reason reason = REASON_INIT;
        int rc = tree_find_partitions(item, item_disk(item)->name, TREE_PARTITIONS_WAIT, &item->table, &reason);

        return rc < 0 && rc != -EBUSY ? item_log_failure(item, rc, &reason) : rc;
}

/* Whether the table has what the number says. */
static bool load_partition(Item *item) {
        return find_table(item) >= 0 && item->node.partition < item->table->count &&
               item_partition(item)->readable;
}

/* Whether the manifest has what the number says. */
static bool exists(Item *item) {
        const Manifest *manifest = item->point->manifest;

        switch (item->node.kind) {
        case NODE_RAW:
        case NODE_MAP:
                return manifest && item->node.index < manifest->disk_count;
        case NODE_CHANGES:
                return manifest && item->node.index < manifest->disk_count && manifest->parent;
        case NODE_PARTITION:
                return manifest && item->node.index < manifest->disk_count && load_partition(item);
        case NODE_KEPT:
                if (!manifest)
                        return false;
                return item->node.index == NODE_DOMAIN ? item_kept(item) != NULL : item->node.index < manifest->file_count;
        default:
                return true;
        }
}

int tree_item(Tree *tree, uint64_t number, Item *ret) {
        CLEANUP(item_clear) Item item = { 0 };
        int rc;

        rc = node_decode(number, &item.node);
        if (rc < 0)
                return rc;
        if (item.node.vm) {
                rc = catalogue_vm(tree->catalogue, item.node.vm, &item.vm);
                if (rc < 0)
                        return rc;
        }
        if (item.node.point) {
                rc = catalogue_point(tree->catalogue, item.vm, item.node.point, &item.point);
                if (rc < 0)
                        return rc;
                if (!exists(&item))
                        return -ESTALE;
        }
        *ret = item;
        item = (Item) { 0 };
        return 0;
}

/* Something in the same VM or point as another thing. */
static Item item_beside(const Item *item, NodeKind kind, uint32_t index) {
        return (Item) {
                .node = { kind, item->node.vm, item->node.point, index, 0 },
                .vm = item->vm ? shared_vm_ref(item->vm) : NULL,
                .point = item->point ? point_ref(item->point) : NULL,
        };
}

int tree_parent(const Item *item, Item *ret) {
        switch (item->node.kind) {
        case NODE_ROOT:
        case NODE_VM:
                *ret = (Item) { .node = { .kind = NODE_ROOT } };
                return 0;
        case NODE_TRIGGER:
        case NODE_LATEST:
        case NODE_POINT:
                *ret = (Item) { .node = { NODE_VM, item->node.vm, 0, 0, 0 }, .vm = shared_vm_ref(item->vm) };
                return 0;
        default:
                *ret = item_beside(item, NODE_POINT, 0);
                return 0;
        }
}

static int find_in_root(Tree *tree, const char *name, Item *ret) {
        SharedVm *vm;
        int rc;

        rc = catalogue_vm_named(tree->catalogue, name, &vm);
        if (rc < 0)
                return rc;
        *ret = (Item) { .node = { NODE_VM, vm_serial(vm->vm), 0, 0, 0 }, .vm = vm };
        return 0;
}

static int find_in_vm(Tree *tree, const Item *parent, const char *name, Item *ret) {
        char latest[POINT_NAME_MAX];
        Point *point;
        int rc;

        if (strcmp(name, TRIGGER_NAME) == 0) {
                *ret = item_beside(parent, NODE_TRIGGER, 0);
                return 0;
        }
        if (strcmp(name, LATEST_NAME) == 0) {
                rc = point_resolve(parent->vm->vm, LATEST_NAME, latest, NULL);
                if (rc < 0)
                        return rc;
                *ret = item_beside(parent, NODE_LATEST, 0);
                return 0;
        }
        rc = catalogue_point_named(tree->catalogue, parent->vm, name, &point);
        if (rc < 0)
                return rc;
        *ret = (Item) {
                .node = { NODE_POINT, parent->node.vm, point->serial, 0, 0 },
                .vm = shared_vm_ref(parent->vm),
                .point = point,
        };
        return 0;
}

/* What is made of one disk. */
static bool find_suffix(const Manifest *manifest, const char *suffix, NodeKind *ret) {
        if (strcmp(suffix, RAW_SUFFIX) == 0)
                *ret = NODE_RAW;
        else if (strcmp(suffix, MAP_SUFFIX) == 0)
                *ret = NODE_MAP;
        else if (strcmp(suffix, CHANGES_SUFFIX) == 0 && manifest->parent)
                *ret = NODE_CHANGES;
        else
                return false;
        return true;
}

/* DISK.raw, DISK.map or DISK.changes. */
static bool find_disk(const Manifest *manifest, const char *name, NodeKind *ret_kind, size_t *ret_index) {
        const char *suffix = strrchr(name, '.');
        NodeKind kind;
        size_t length;

        if (!suffix || !find_suffix(manifest, suffix, &kind))
                return false;
        length = (size_t) (suffix - name);
        for (size_t i = 0; i < manifest->disk_count && i < NODE_DISK_MAX; i++) {
                const char *disk = manifest->disks[i].name;

                if (strncmp(disk, name, length) == 0 && !disk[length]) {
                        *ret_kind = kind;
                        *ret_index = i;
                        return true;
                }
        }
        return false;
}

/* DISK1.raw; false where it is not shown. */
static bool name_partition(const Item *item, char ret[static NAME_MAX + 1]) {
        size_t room = NAME_MAX + 1 - strlen(RAW_SUFFIX);
        int length = partition_name(item_disk(item)->name, item_partition(item), ret, room);

        if (!item_partition(item)->readable || (size_t) length >= room)
                return false;
        strcpy(ret + length, RAW_SUFFIX);
        return true;
}

/* DISK1.raw. Only a disk whose name it begins with is looked into. */
static int find_partition(const Item *parent, const char *name, Item *ret) {
        const Manifest *manifest = parent->point->manifest;
        char candidate[NAME_MAX + 1];

        for (size_t i = 0; i < manifest->disk_count && i < NODE_DISK_MAX; i++) {
                CLEANUP(item_clear) Item item = { 0 };
                const char *disk = manifest->disks[i].name;

                if (strncmp(name, disk, strlen(disk)) != 0)
                        continue;
                item = item_beside(parent, NODE_PARTITION, (uint32_t) i);
                if (find_table(&item) < 0)
                        continue;
                for (; item.node.partition < item.table->count; item.node.partition++)
                        if (name_partition(&item, candidate) && strcmp(candidate, name) == 0) {
                                *ret = item;
                                item = (Item) { 0 };
                                return 0;
                        }
        }
        return -ENOENT;
}

/* Ours go first, whatever names a manifest gives its files. */
static int find_in_point(const Item *parent, const char *name, Item *ret) {
        const Manifest *manifest = parent->point->manifest;
        const ManifestFile *file;
        NodeKind kind;
        size_t index;

        if (strcmp(name, INFO_NAME) == 0) {
                *ret = item_beside(parent, NODE_INFO, 0);
                return 0;
        }
        if (!manifest)
                return -EIO;
        if (find_disk(manifest, name, &kind, &index)) {
                *ret = item_beside(parent, kind, (uint32_t) index);
                return 0;
        }
        file = manifest_find_file(manifest, name);
        if (!file)
                return find_partition(parent, name, ret);
        index = (size_t) (file - manifest->files);
        if (strcmp(name, DOMAIN_NAME) == 0)
                *ret = item_beside(parent, NODE_KEPT, NODE_DOMAIN);
        else if (index < NODE_KEPT_MAX)
                *ret = item_beside(parent, NODE_KEPT, (uint32_t) index);
        else
                return -ENOENT;
        return 0;
}

int tree_find(Tree *tree, const Item *parent, const char *name, Item *ret) {
        switch (parent->node.kind) {
        case NODE_ROOT:
                return find_in_root(tree, name, ret);
        case NODE_VM:
                return find_in_vm(tree, parent, name, ret);
        case NODE_POINT:
                return find_in_point(parent, name, ret);
        default:
                return -ENOTDIR;
        }
}

/* A name from a manifest that can stand in a directory. */
static bool can_be_listed(const char *name) {
        return *name && *name != '.' && !strchr(name, '/') && strlen(name) <= NAME_MAX;
}

static int list_vm(const Item *directory, Strings *names, Reason *reterr) {
        CLEANUP(strings_free) Strings points = { 0 };
        int rc;

        rc = vm_list_points(directory->vm->vm, &points, reterr);
        if (rc < 0)
                return rc;
        rc = strings_add(names, TRIGGER_NAME);
        if (rc == 0 && points.count > 0)
                rc = strings_add(names, LATEST_NAME);
        for (size_t i = 0; rc == 0 && i < points.count; i++)
                rc = strings_add(names, points.items[i]);
        return rc;
}

static int list_file(const char *stem, const char *suffix, Strings *names) {
        char name[NAME_MAX + 1];

        if ((size_t) snprintf(name, sizeof name, "%s%s", stem, suffix) >= sizeof name)
                return 0;
        return strings_add(names, name);
}

/* The partitions that have no other thing's name. A disk that cannot be looked into shows none. */
static int list_partitions(const Item *directory, size_t index, Strings *names) {
        CLEANUP(item_clear) Item item = item_beside(directory, NODE_PARTITION, (uint32_t) index);
        char name[NAME_MAX + 1];
        int rc = find_table(&item);

        if (rc < 0)
                return rc == -ENOMEM ? rc : 0;
        for (rc = 0; rc == 0 && item.node.partition < item.table->count; item.node.partition++) {
                Item known = { 0 };

                if (!name_partition(&item, name) || find_in_point(directory, name, &known) < 0)
                        continue;
                if (known.node.kind == NODE_PARTITION && known.node.index == index)
                        rc = strings_add(names, name);
                item_clear(&known);
        }
        return rc;
}

static int list_disk(const Item *directory, size_t index, Strings *names) {
        const Manifest *manifest = directory->point->manifest;
        const char *disk = manifest->disks[index].name;
        int rc;

        if (!can_be_listed(disk))
                return 0;
        rc = list_file(disk, RAW_SUFFIX, names);
        if (rc == 0)
                rc = list_file(disk, MAP_SUFFIX, names);
        if (rc == 0 && manifest->parent)
                rc = list_file(disk, CHANGES_SUFFIX, names);
        return rc < 0 ? rc : list_partitions(directory, index, names);
}

static int list_point(const Item *directory, Strings *names) {
        const Manifest *manifest = directory->point->manifest;
        NodeKind kind;
        size_t index;
        int rc;

        rc = strings_add(names, INFO_NAME);
        if (!manifest)
                return rc;
        for (size_t i = 0; rc == 0 && i < manifest->disk_count && i < NODE_DISK_MAX; i++)
                rc = list_disk(directory, i, names);
        for (size_t i = 0; rc == 0 && i < manifest->file_count && i < NODE_KEPT_MAX; i++) {
                const char *file = manifest->files[i].name;

                if (can_be_listed(file) && strcmp(file, INFO_NAME) != 0 && !find_disk(manifest, file, &kind, &index))
                        rc = strings_add(names, file);
        }
        return rc;
}

int tree_list(Tree *tree, const Item *directory, Strings *ret) {
        CLEANUP(strings_free) Strings names = { 0 };
        Reason reason = REASON_INIT;
        int rc;

        switch (directory->node.kind) {
        case NODE_ROOT:
                rc = repository_list_vms(tree->repository, &names, &reason);
                break;
        case NODE_VM:
                rc = list_vm(directory, &names, &reason);
                break;
        case NODE_POINT:
                rc = list_point(directory, &names);
                break;
        default:
                return -ENOTDIR;
        }
        if (rc < 0) {
                if (*reason.text)
                        log_once(node_number(directory->node), "%s", reason.text);
                return rc;
        }
        *ret = names;
        names = (Strings) { 0 };
        return 0;
}

int tree_link(const Item *item, char ret[static POINT_NAME_MAX]) {
        if (item->node.kind != NODE_LATEST)
                return -EINVAL;
        return point_resolve(item->vm->vm, LATEST_NAME, ret, NULL);
}
