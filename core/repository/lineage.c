#include "repository/lineage.h"

#include <errno.h>
#include <string.h>

void lineage_clear(Lineage *lineage) {
        for (size_t i = 0; i < lineage->count; i++) {
                LineagePoint *point = &lineage->points[i];

                manifest_unref(point->manifest);
                free(point->damage);
                free(point->lost);
        }
        free(lineage->points);
        strings_free(&lineage->reasons);
        *lineage = (Lineage) { 0 };
}

/* Adds a point, in any order. What is wrong with its manifest is a property of it; only memory can fail this. */
static int add_point(Lineage *lineage, Vm *vm, const char *name) {
        LineagePoint point = { 0 };
        Reason reason = REASON_INIT;

        /* There is room up to the next power of two. */
        if ((lineage->count & (lineage->count - 1)) == 0) {
                LineagePoint *grown = reallocarray(lineage->points, lineage->count ? lineage->count * 2 : 1, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                lineage->points = grown;
        }
        snprintf(point.name, sizeof point.name, "%s", name);
        point.error = manifest_read(vm, name, &point.manifest, &reason);
        if (point.error == -ENOMEM)
                return -ENOMEM;
        if (point.error < 0) {
                point.damage = strdup(reason.text);
                if (!point.damage)
                        return -ENOMEM;
        } else {
                point.lost = calloc(point.manifest->disk_count + 1, sizeof *point.lost);
                if (!point.lost) {
                        manifest_unref(point.manifest);
                        return -ENOMEM;
                }
        }
        lineage->points[lineage->count++] = point;
        return 0;
}

static int compare_name(const void *name, const void *point) {
        return strcmp(name, ((const LineagePoint *) point)->name);
}

/* The point of that name among the first count. */
static const LineagePoint *find_point(const Lineage *lineage, size_t count, const char *name) {
        return count == 0 ? NULL : bsearch(name, lineage->points, count, sizeof *lineage->points, compare_name);
}

/* Keeps the words for as long as the lineage. */
static int keep_reason(Lineage *lineage, const Reason *reason, const char **ret) {
        int rc = strings_add(&lineage->reasons, reason->text);

        if (rc == 0)
                *ret = lineage->reasons.items[lineage->reasons.count - 1];
        return rc;
}

/* Judges one disk of the point at index, all before it having been judged. */
static int judge_disk(Lineage *lineage, size_t index, size_t disk) {
        LineagePoint *point = &lineage->points[index];
        const Manifest *manifest = point->manifest;
        const ManifestDisk *own = &manifest->disks[disk], *parents;
        const LineagePoint *parent;
        Reason reason;

        if (own->problem) {
                point->lost[disk] = own->problem; /* the lineage has the manifest */
                return 0;
        }
        if (own->kind == POINT_FULL)
                return 0;
        parent = find_point(lineage, index, manifest->parent);
        if (!parent)
                fail(&reason, 0, "its ancestor %s is missing", manifest->parent);
        else if (!parent->manifest && parent->error == -ENOENT)
                fail(&reason, 0, "its ancestor %s is missing", manifest->parent);
        else if (!parent->manifest)
                fail(&reason, 0, "its ancestor %s: %s", manifest->parent, parent->damage);
        else if (strcasecmp(parent->manifest->vm_uuid, manifest->vm_uuid) != 0)
                fail(&reason, 0, "its ancestor %s is of another VM", manifest->parent);
        else {
                parents = manifest_find_disk(parent->manifest, own->name);
                if (parents && parents->problem) {
                        fail(&reason, 0, "its ancestor %s: %s", manifest->parent, parents->problem);
                        return keep_reason(lineage, &reason, &point->lost[disk]);
                }
                if (parents) {
                        point->lost[disk] = parent->lost[parents - parent->manifest->disks];
                        return 0;
                }
                fail(&reason, 0, "its ancestor %s has no disk %s", manifest->parent, own->name);
        }
        return keep_reason(lineage, &reason, &point->lost[disk]);
}

static int judge(Lineage *lineage) {
        for (size_t i = 0; i < lineage->count; i++)
                for (size_t d = 0; lineage->points[i].manifest && d < lineage->points[i].manifest->disk_count; d++) {
                        int rc = judge_disk(lineage, i, d);

                        if (rc < 0)
                                return rc;
                }
        return 0;
}

static bool needs_parent(const Manifest *manifest) {
        for (size_t i = 0; i < manifest->disk_count; i++)
                if (manifest->disks[i].kind != POINT_FULL)
                        return true;
        return false;
}

static void reverse(Lineage *lineage) {
        for (size_t i = 0; i < lineage->count / 2; i++) {
                LineagePoint swapped = lineage->points[i];

                lineage->points[i] = lineage->points[lineage->count - 1 - i];
                lineage->points[lineage->count - 1 - i] = swapped;
        }
}

int lineage_of_point(Vm *vm, const char *name, Lineage *ret, Reason *reterr) {
        CLEANUP(lineage_clear) Lineage lineage = { 0 };
        int rc = 0;

        /* It ends: a parent's name sorts before its child's. */
        while (name && rc == 0) {
                const Manifest *manifest;

                rc = add_point(&lineage, vm, name);
                if (rc < 0)
                        break;
                manifest = lineage.points[lineage.count - 1].manifest;
                name = manifest && needs_parent(manifest) ? manifest->parent : NULL;
        }
        reverse(&lineage);
        if (rc == 0)
                rc = judge(&lineage);
        if (rc < 0)
                return fail_oom(reterr);
        *ret = lineage;
        lineage = (Lineage) { 0 };
        return 0;
}

int lineage_of_vm(Vm *vm, Lineage *ret, Reason *reterr) {
        CLEANUP(lineage_clear) Lineage lineage = { 0 };
        CLEANUP(strings_free) Strings names = { 0 };
        int rc = vm_list_points(vm, &names, reterr);

        if (rc < 0)
                return rc;
        for (size_t i = 0; rc == 0 && i < names.count; i++)
                rc = add_point(&lineage, vm, names.items[i]);
        if (rc == 0)
                rc = judge(&lineage);
        if (rc < 0)
                return fail_oom(reterr);
        *ret = lineage;
        lineage = (Lineage) { 0 };
        return 0;
}

const char *lineage_problem(const LineagePoint *point) {
        if (!point->manifest)
                return point->damage;
        for (size_t i = 0; i < point->manifest->disk_count; i++)
                if (point->lost[i])
                        return point->lost[i];
        return NULL;
}
