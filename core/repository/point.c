#include "repository/point.h"

#include <errno.h>
#include <string.h>

#include "repository/lineage.h"
#include "util/timestamp.h"
#include "util/uri.h"

static json_t *optional_text(const char *text) {
        return text ? json_text(text) : json_null();
}

static json_t *describe_allocated(const ManifestDisk *disk) {
        uint64_t allocated = manifest_disk_allocated(disk);

        return allocated == ALLOCATED_UNKNOWN ? json_null() : json_integer((json_int_t) allocated);
}

static json_t *describe_disks(Vm *vm, const Manifest *manifest) {
        CLEANUP(json_decrefp) json_t *list = json_array();
        uint64_t done, total;

        for (size_t i = 0; manifest && i < manifest->disk_count; i++) {
                const ManifestDisk *disk = &manifest->disks[i];
                json_t *item = json_pack("{s:o, s:I, s:o, s:I, s:I, s:s}", "name", json_text(disk->name),
                                         "size", (json_int_t) disk->size, "allocated", describe_allocated(disk),
                                         "unreadable", (json_int_t) disk->unreadable,
                                         "stored", (json_int_t) manifest_disk_stored(disk),
                                         "kind", point_kind_name(disk->kind));
                int bad = !item;

                if (disk->why)
                        bad |= json_object_set_new(item, "why", json_text(disk->why));
                if (disk->backing)
                        bad |= json_object_set_new(item, "backing", json_text(disk->backing));
                if (disk->note)
                        bad |= json_object_set_new(item, "note", json_text(disk->note));
                if (disk->problem)
                        bad |= json_object_set_new(item, "reason", json_text(disk->problem));
                if (manifest_disk_progress(vm, manifest, disk, &done, &total))
                        bad |= json_object_set_new(item, "unpacking", json_pack("{s:I, s:I}", "done", (json_int_t) done,
                                                                                "total", (json_int_t) total));
                bad |= json_array_append_new(list, item);
                if (bad)
                        return NULL;
        }
        return STEAL_PTR(list);
}

static json_t *describe_time(struct timespec time) {
        char text[TIMESTAMP_MAX];

        timestamp_format(time, text);
        return json_string(text);
}

/* manifest: NULL where it cannot be used; problem: why the point is not complete, or NULL. */
static int describe_judged(Vm *vm, const char *name, const Manifest *manifest, const char *problem, json_t **ret,
                           Reason *reterr) {
        CLEANUP(json_decrefp) json_t *object = json_object();
        int bad = !object;

        bad |= json_object_set_new(object, "name", json_string(name));
        bad |= json_object_set_new(object, "kind", optional_text(manifest ? point_kind_name(manifest->kind) : NULL));
        bad |= json_object_set_new(object, "time", manifest ? describe_time(manifest->time) : json_null());
        bad |= json_object_set_new(object, "parent", optional_text(manifest ? manifest->parent : NULL));
        bad |= json_object_set_new(object, "checkpoint", optional_text(manifest ? manifest->checkpoint : NULL));
        bad |= json_object_set_new(object, "stored",
                                   manifest ? json_integer((json_int_t) manifest_stored(manifest)) : json_null());
        bad |= json_object_set_new(object, "complete", json_boolean(!problem));
        if (problem)
                bad |= json_object_set_new(object, "reason", json_text(problem));
        bad |= json_object_set_new(object, "disks", describe_disks(vm, manifest));
        if (bad)
                return fail_oom(reterr);
        *ret = STEAL_PTR(object);
        return 0;
}

static int describe(Vm *vm, const LineagePoint *point, json_t **ret, Reason *reterr) {
        return describe_judged(vm, point->name, point->manifest, lineage_problem(point), ret, reterr);
}

/* The lineage of one point; -ENOENT where there is no such point. */
static int open_point(Vm *vm, const char *name, Lineage *ret, const LineagePoint **ret_point, Reason *reterr) {
        CLEANUP(lineage_clear) Lineage lineage = { 0 };
        const LineagePoint *point = NULL;
        int rc = lineage_of_point(vm, name, &lineage, reterr);

        if (rc < 0)
                return rc;
        point = &lineage.points[lineage.count - 1];
        if (point->error == -ENOENT)
                return fail(reterr, -ENOENT, "%s", point->damage);
        *ret = lineage;
        *ret_point = point;
        lineage = (Lineage) { 0 };
        return 0;
}

int point_check(Vm *vm, const char *name, Reason *reterr) {
        CLEANUP(lineage_clear) Lineage lineage = { 0 };
        const LineagePoint *point = NULL;
        int rc = open_point(vm, name, &lineage, &point, reterr);

        if (rc < 0)
                return rc;
        if (!point->manifest)
                return fail(reterr, point->error, "%s", point->damage);
        if (lineage_problem(point))
                return fail(reterr, -EBADMSG, "%s/%s is not complete: %s", vm_name(vm), name, lineage_problem(point));
        return 0;
}

int point_info(Vm *vm, const char *name, const Manifest *manifest, const char *problem, json_t **ret, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *info = json_pack("{s:o}", "vm", json_text(vm_name(vm)));
        CLEANUP(json_decrefp) json_t *point = NULL;
        int rc = describe_judged(vm, name, manifest, problem, &point, reterr);

        if (rc < 0)
                return rc;
        if (json_object_update(info, point) < 0)
                return fail_oom(reterr);
        *ret = STEAL_PTR(info);
        return 0;
}

json_t *vm_describe_source(const Vm *vm) {
        CLEANUP(freep) char *shown = NULL;

        if (!vm_source(vm))
                return json_null();
        return uri_hide_passwords(vm_source(vm), &shown) < 0 ? NULL : json_text(shown);
}

static int describe_points(Vm *vm, const Lineage *lineage, size_t first, json_t *points, Reason *reterr) {
        for (size_t i = first; i < lineage->count; i++) {
                json_t *point;
                int rc;

                if (lineage->points[i].error == -ENOENT) /* gone since it was listed */
                        continue;
                rc = describe(vm, &lineage->points[i], &point, reterr);
                if (rc < 0)
                        return rc;
                if (json_array_append_new(points, point) < 0)
                        return fail_oom(reterr);
        }
        return 0;
}

int vm_describe(Vm *vm, const char *point, json_t **ret, Reason *reterr) {
        CLEANUP(lineage_clear) Lineage lineage = { 0 };
        CLEANUP(json_decrefp) json_t *object = json_object();
        json_t *points = json_array();
        int bad = !object || !points, rc;

        bad |= json_object_set_new(object, "name", json_text(vm_name(vm)));
        bad |= json_object_set_new(object, "uuid", *vm_uuid(vm) ? json_text(vm_uuid(vm)) : json_null());
        bad |= json_object_set_new(object, "source", vm_describe_source(vm));
        if (vm_damage(vm))
                bad |= json_object_set_new(object, "reason", json_text(vm_damage(vm)));
        bad |= json_object_set_new(object, "points", points);
        if (bad)
                return fail_oom(reterr);
        if (point)
                rc = open_point(vm, point, &lineage, &(const LineagePoint *) { NULL }, reterr);
        else
                rc = lineage_of_vm(vm, &lineage, reterr);
        if (rc == 0)
                rc = describe_points(vm, &lineage, point ? lineage.count - 1 : 0, points, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(object);
        return 0;
}

int point_resolve(Vm *vm, const char *word, char ret[static POINT_NAME_MAX], Reason *reterr) {
        char newest[POINT_NAME_MAX];
        Identity identity;
        int rc;

        if (strcmp(word, "latest") == 0) {
                rc = vm_newest_point(vm, newest, reterr);
                if (rc < 0)
                        return rc;
                if (!*newest)
                        return fail(reterr, -ENOENT, "%s has no points yet", vm_name(vm));
                word = newest;
        } else {
                rc = vm_identify_point(vm, word, &identity);
                if (rc == -ENOENT)
                        return fail(reterr, rc, "%s has no point \"%s\"", vm_name(vm), word);
                if (rc < 0)
                        return fail_errno(reterr, rc, "cannot look at %s/%s", vm_name(vm), word);
        }
        snprintf(ret, POINT_NAME_MAX, "%s", word);
        return 0;
}
