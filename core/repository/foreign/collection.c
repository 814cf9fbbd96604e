#include "repository/foreign/collection.h"

#include <errno.h>
#include <string.h>
#include <uuid/uuid.h>

#include "repository/foreign/group.h"
#include "repository/foreign/names.h"
#include "repository/foreign/point-maker.h"

#define SERIALS (SERIAL_MAX + 1) /* in the half that is for what has no record of its serial */

Collection *collection_ref(Collection *collection) {
        __atomic_add_fetch(&collection->references, 1, __ATOMIC_RELAXED);
        return collection;
}

static void clear_vm(CollectedVm *vm) {
        for (size_t i = 0; i < vm->count; i++)
                manifest_unref(vm->points[i]);
        free(vm->points);
        free(vm->name);
        free(vm->uuid);
        free(vm->directory);
}

Collection *collection_unref(Collection *collection) {
        if (!collection || __atomic_sub_fetch(&collection->references, 1, __ATOMIC_ACQ_REL) > 0)
                return NULL;
        for (size_t i = 0; i < collection->count; i++)
                clear_vm(&collection->vms[i]);
        free(collection->vms);
        free(collection);
        return NULL;
}

static int compare_vm(const void *name, const void *vm) {
        return strcmp(name, ((const CollectedVm *) vm)->name);
}

const CollectedVm *collection_find(const Collection *collection, const char *name) {
        return collection->count == 0 ? NULL
                                      : bsearch(name, collection->vms, collection->count, sizeof *collection->vms,
                                                compare_vm);
}

const CollectedVm *collection_find_serial(const Collection *collection, uint32_t serial) {
        for (size_t i = 0; i < collection->count; i++)
                if (collection->vms[i].serial == serial)
                        return &collection->vms[i];
        return NULL;
}

static int compare_point(const void *name, const void *point) {
        return strcmp(name, (*(Manifest *const *) point)->name);
}

Manifest *collected_vm_find(const CollectedVm *vm, const char *point) {
        Manifest **found = vm->count == 0 ? NULL : bsearch(point, vm->points, vm->count, sizeof *vm->points, compare_point);

        return found ? *found : NULL;
}

Manifest *collected_vm_find_serial(const CollectedVm *vm, uint32_t serial) {
        for (size_t i = 0; i < vm->count; i++)
                if (vm->points[i]->serial == serial)
                        return vm->points[i];
        return NULL;
}

/* What is called so, until there is a better reason for a serial: free ones are taken. */
typedef struct Serials {
        unsigned char *used; /* a bit for each */
} Serials;

static bool take_serial(Serials *serials, uint32_t serial) {
        uint32_t bit = serial & SERIAL_MAX;
        bool free_yet = !(serials->used[bit / 8] & (1u << bit % 8));

        serials->used[bit / 8] |= (unsigned char) (1u << bit % 8);
        return free_yet;
}

static uint32_t take_next_serial(Serials *serials, const char *name) {
        uint32_t serial = serial_stand_in(name);

        while (!take_serial(serials, serial))
                serial = SERIALS | ((serial + 1) & SERIAL_MAX);
        return serial;
}

static void clear_serials(Serials *serials) {
        free(serials->used);
}

/* What was there before keeps its number; new ones get theirs in the order of their names. */
static int number_points(CollectedVm *vm, const CollectedVm *previous) {
        CLEANUP(clear_serials) Serials serials = { calloc(1, SERIALS / 8) };

        if (!serials.used)
                return -ENOMEM;
        for (size_t i = 0; previous && i < vm->count; i++) {
                const Manifest *before = collected_vm_find(previous, vm->points[i]->name);

                if (before && take_serial(&serials, before->serial))
                        vm->points[i]->serial = before->serial;
        }
        for (size_t i = 0; i < vm->count; i++)
                if (vm->points[i]->serial == 0)
                        vm->points[i]->serial = take_next_serial(&serials, vm->points[i]->name);
        return 0;
}

/* A point that is the same goes on as it is, with what has been found out about it. */
static void keep_points(CollectedVm *vm, const CollectedVm *previous) {
        for (size_t i = 0; i < vm->count; i++) {
                Manifest *before = collected_vm_find(previous, vm->points[i]->name);

                if (!before || strcmp(before->capture, vm->points[i]->capture) != 0 ||
                    before->serial != vm->points[i]->serial)
                        continue;
                manifest_unref(vm->points[i]);
                vm->points[i] = manifest_ref(before);
        }
}

static int number_vms(Collection *collection, const Collection *previous) {
        CLEANUP(clear_serials) Serials serials = { calloc(1, SERIALS / 8) };

        if (!serials.used)
                return -ENOMEM;
        for (size_t i = 0; previous && i < collection->count; i++) {
                const CollectedVm *before = collection_find(previous, collection->vms[i].name);

                if (before && take_serial(&serials, before->serial))
                        collection->vms[i].serial = before->serial;
        }
        for (size_t i = 0; i < collection->count; i++) {
                CollectedVm *vm = &collection->vms[i];
                const CollectedVm *before = previous ? collection_find(previous, vm->name) : NULL;

                if (vm->serial == 0)
                        vm->serial = take_next_serial(&serials, vm->name);
                if (number_points(vm, before) < 0)
                        return -ENOMEM;
                if (before)
                        keep_points(vm, before);
        }
        return 0;
}

static int compare_vms(const void *a, const void *b) {
        return strcmp(((const CollectedVm *) a)->name, ((const CollectedVm *) b)->name);
}

static int compare_points(const void *a, const void *b, void *context) {
        const Groups *groups = context;
        const GroupPoint *left = &groups->points[*(const size_t *) a], *right = &groups->points[*(const size_t *) b];

        if (left->vm != right->vm)
                return left->vm < right->vm ? -1 : 1;
        if (left->shown.tv_sec != right->shown.tv_sec)
                return left->shown.tv_sec < right->shown.tv_sec ? -1 : 1;
        if (left->shown.tv_nsec != right->shown.tv_nsec)
                return left->shown.tv_nsec < right->shown.tv_nsec ? -1 : 1;
        if (left->depth != right->depth)
                return left->depth < right->depth ? -1 : 1;
        return strcmp(left->key, right->key);
}

/* Moments that no calendar has are those of its ends. */
static time_t bound_time(time_t moment) {
        static const time_t last = 253370764800; /* the year 9999 */

        return moment < 0 ? 0 : moment > last ? last : moment;
}

/* Names the points in an order in which parents come before their children. */
static int make_points(const Groups *groups, CollectedVm *vms) {
        CLEANUP(freep) size_t *list = calloc(groups->point_count + 1, sizeof *list);
        CLEANUP(freep) Manifest **made = calloc(groups->point_count + 1, sizeof *made); /* borrowed */
        char name[POINT_NAME_MAX] = "";

        if (!list || !made)
                return -ENOMEM;
        for (size_t i = 0; i < groups->point_count; i++)
                list[i] = i;
        qsort_r(list, groups->point_count, sizeof *list, compare_points, (void *) groups);
        for (size_t i = 0; i < groups->point_count; i++) {
                const GroupPoint *point = &groups->points[list[i]];
                const Manifest *parent = point->parent == GROUP_NONE ? NULL : made[point->parent];
                CollectedVm *vm = &vms[point->vm];
                int rc;

                if (vm->count == 0) {
                        size_t end = i;

                        while (end < groups->point_count && groups->points[list[end]].vm == point->vm)
                                end++;
                        vm->points = calloc(end - i, sizeof *vm->points);
                        if (!vm->points)
                                return -ENOMEM;
                        name[0] = 0;
                }
                rc = point_name_next(bound_time(point->shown.tv_sec), name, name);
                if (rc == 0)
                        rc = point_make(groups, point, vm->name, vm->uuid, name, parent, &vm->points[vm->count]);
                if (rc < 0)
                        return rc;
                made[list[i]] = vm->points[vm->count++];
        }
        return 0;
}

/* The UUID that the backups name, or one made of the name: whatever refers to the VM needs one. */
static int set_uuid(const char *text, CollectedVm *vm) {
        static const uuid_t space = { 0x3b, 0x1f, 0x5a, 0x9e, 0x0d, 0x4c, 0x4e, 0x77,
                                      0x9d, 0x2a, 0x61, 0x87, 0x0c, 0xe2, 0x54, 0xb8 };
        uuid_t uuid;

        vm->has_uuid = text && uuid_parse(text, uuid) == 0;
        if (!vm->has_uuid)
                uuid_generate_sha1(uuid, space, vm->name, strlen(vm->name));
        vm->uuid = malloc(UUID_STR_LEN);
        if (!vm->uuid)
                return -ENOMEM;
        uuid_unparse_lower(uuid, vm->uuid);
        return 0;
}

static int make_vms(const Groups *groups, const char *root_name, Collection *collection) {
        CLEANUP(freep) char **names = calloc(groups->vm_count + 1, sizeof *names);
        int rc;

        collection->vms = calloc(groups->vm_count + 1, sizeof *collection->vms);
        if (!names || !collection->vms)
                return -ENOMEM;
        collection->count = groups->vm_count;
        rc = names_of_vms(groups, root_name, names);
        for (size_t i = 0; i < groups->vm_count; i++)
                collection->vms[i].name = names[i];
        for (size_t i = 0; rc == 0 && i < groups->vm_count; i++) {
                CollectedVm *vm = &collection->vms[i];

                rc = set_uuid(groups->vms[i].uuid, vm);
                vm->directory = strdup(groups->vms[i].directory);
                if (!vm->directory)
                        rc = -ENOMEM;
        }
        return rc;
}

int collection_new(const Findings *findings, const char *root_name, const Collection *previous, Collection **ret) {
        CLEANUP(collection_unrefp) Collection *collection = calloc(1, sizeof *collection);
        CLEANUP(groups_clear) Groups groups = { 0 };
        int rc;

        if (!collection)
                return -ENOMEM;
        collection->references = 1;
        rc = groups_make(findings, &groups);
        if (rc == 0)
                rc = make_vms(&groups, root_name, collection);
        if (rc == 0)
                rc = make_points(&groups, collection->vms);
        if (rc < 0)
                return rc;
        qsort(collection->vms, collection->count, sizeof *collection->vms, compare_vms);
        rc = number_vms(collection, previous);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(collection);
        return 0;
}
