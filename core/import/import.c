#include "import/import.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "capture/leftovers.h"
#include "import/import-point.h"
#include "repository/capture-lock.h"
#include "repository/points-lock.h"
#include "repository/lineage.h"
#include "util/strings.h"

typedef struct Import {
        Vm *vm, *from;
        const ImportOptions *options;
        ImportTotals *totals;
        Lineage lineage;   /* of the other tool's points */
        bool *here;        /* for each: it is a point of ours */
        Strings points;    /* ours, before */
        uint32_t serial;   /* the greatest of ours */
        size_t number, count;
} Import;

static void import_clear(Import *import) {
        lineage_clear(&import->lineage);
        strings_free(&import->points);
        free(import->here);
}

static void tell(void (*say)(void *context, const char *line), void *context, const char *vm, const char *point,
                 const char *words) {
        char line[VM_NAME_MAX + POINT_NAME_MAX + REASON_MAX + 40];

        if (!say)
                return;
        snprintf(line, sizeof line, "%s/%s%s%s", vm, point, words ? " is not imported: " : "", words ?: "");
        say(context, line);
}

static void leave_out(Import *import, const LineagePoint *point, const char *words) {
        import->totals->left_out++;
        tell(import->options->warn, import->options->context, vm_name(import->vm), point->name, words);
}

/* The VM of ours, made where it is not there. */
static int prepare_vm(Repository *repository, const char *name, const char *uuid, Vm **ret, Reason *reterr) {
        CLEANUP(vm_freep) Vm *vm = NULL;
        int rc = vm_open(repository, name, &vm, reterr);

        if (rc == -ENOENT) {
                rc = vm_add(repository, name, uuid, NULL, NULL, reterr);
                if (rc == 0)
                        rc = vm_open(repository, name, &vm, reterr);
        }
        if (rc < 0)
                return rc;
        if (vm_damage(vm))
                return fail(reterr, -EEXIST, "%s: %s", name, vm_damage(vm));
        if (vm_source(vm) && !vm_is_captured(vm))
                return fail(reterr, -EEXIST, "%s is registered with a directory of another tool: forget it first", name);
        if (strcasecmp(vm_uuid(vm), uuid) != 0)
                return fail(reterr, -EEXIST, "%s is another VM (%s) than the one that is to be imported (%s): "
                            "import it under another name with --as", name, vm_uuid(vm), uuid);
        *ret = STEAL_PTR(vm);
        return 0;
}

/* What is there, and up to which number; with the VM's lock held. */
static int look_at_own(Import *import, Reason *reterr) {
        int rc = leftovers_remove_data(import->vm, reterr);

        if (rc == 0)
                rc = vm_list_points(import->vm, &import->points, reterr);
        if (rc == 0 && import->points.count > 0) {
                CLEANUP(manifest_unrefp) Manifest *newest = NULL;

                /* Serials grow with names. */
                rc = manifest_read(import->vm, import->points.items[import->points.count - 1], &newest, reterr);
                if (rc == 0)
                        import->serial = newest->serial;
        }
        import->here = calloc(import->lineage.count + 1, sizeof *import->here);
        return rc == 0 && !import->here ? fail_oom(reterr) : rc;
}

static bool has_point(const Import *import, const char *name) {
        return strings_find(&import->points, name);
}

/* What a point of the other tool's continues here. */
typedef struct Continued {
        ssize_t parent;          /* its place; -1: nothing, or: */
        const char *words;       /* why the point cannot be imported; or NULL */
        const Manifest **folded; /* those between the two, newest first, which are incomplete; borrowed from the lineage */
        size_t folded_count;
} Continued;

static void continued_clear(Continued *continued) {
        free(continued->folded);
}

static ssize_t find_before(const Import *import, size_t index, const char *name) {
        while (index-- > 0)
                if (strcmp(import->lineage.points[index].name, name) == 0)
                        return (ssize_t) index;
        return -1;
}

static int add_folded(Continued *continued, const Manifest *manifest) {
        const Manifest **grown = reallocarray(continued->folded, continued->folded_count + 1, sizeof *grown);

        if (!grown)
                return -ENOMEM;
        continued->folded = grown;
        grown[continued->folded_count++] = manifest;
        return 0;
}

/* Incomplete ancestors are passed by: what the point itself shows rests on none of what they lack. */
static int find_continued(const Import *import, size_t index, Continued *ret, Reason *reterr) {
        const Manifest *manifest = import->lineage.points[index].manifest;

        ret->parent = -1;
        while (manifest && manifest->kind != POINT_FULL && manifest->parent) {
                ssize_t at = find_before(import, index, manifest->parent);
                const LineagePoint *point = at < 0 ? NULL : &import->lineage.points[at];

                if (!point || import->here[at]) {
                        ret->parent = at;
                        return 0;
                }
                manifest = point->manifest;
                index = (size_t) at;
                if (!manifest || !lineage_problem(point)) {
                        ret->words = "the point that it continues is not imported";
                        return 0;
                }
                if (add_folded(ret, manifest) < 0)
                        return fail_oom(reterr);
        }
        return 0;
}

/* Whether a point of ours is what would become of the other tool's. parent: the name of that; or NULL. */
static bool is_same(const Manifest *ours, const Manifest *stored, const char *parent) {
        bool same = ours->time.tv_sec == stored->time.tv_sec && ours->disk_count == stored->disk_count &&
                    (ours->kind == POINT_FULL) == !parent && !ours->parent == !parent &&
                    (!parent || strcmp(ours->parent, parent) == 0);

        for (size_t i = 0; same && i < stored->disk_count; i++) {
                const ManifestDisk *disk = manifest_find_disk(ours, stored->disks[i].name);

                same = disk && disk->size == stored->disks[i].size;
        }
        return same;
}

/* 1: it is imported, or left out with words; 0: it is yet to do. */
static int pass_over(Import *import, size_t index, const Continued *continued, Reason *reterr) {
        const LineagePoint *point = &import->lineage.points[index];
        const char *problem = lineage_problem(point), *parent = NULL;
        CLEANUP(manifest_unrefp) Manifest *ours = NULL;
        int rc;

        if (!has_point(import, point->name)) {
                if (problem)
                        leave_out(import, point, problem);
                return problem != NULL;
        }
        rc = manifest_read(import->vm, point->name, &ours, reterr);
        if (rc < 0)
                return rc;
        if (continued->parent >= 0)
                parent = import->lineage.points[continued->parent].name;
        else if (continued->words)
                parent = point->manifest->parent;
        import->here[index] = point->manifest && is_same(ours, point->manifest, parent);
        if (!import->here[index])
                leave_out(import, point, "there is another point of that name");
        return 1;
}

static int import_one(Import *import, size_t index, const Continued *continued, Reason *reterr) {
        const LineagePoint *point = &import->lineage.points[index];
        CLEANUP(manifest_unrefp) Manifest *parent = NULL;
        ImportPoint one = {
                .vm = import->vm, .from = import->from, .stored = point->manifest, .serial = import->serial + 1,
                .number = ++import->number, .count = import->count, .options = import->options,
                .folded = continued->folded, .folded_count = continued->folded_count,
        };
        const char *words = continued->words;
        bool source_failed = false;
        Reason reason = REASON_INIT;
        int rc;

        if (!words && import->points.count > 0 && strcmp(point->name, import->points.items[import->points.count - 1]) < 0)
                words = "the VM has newer points already: import it under another name with --as";
        if (words) {
                leave_out(import, point, words);
                return 0;
        }
        if (import->serial >= SERIAL_MAX)
                return fail(reterr, -EOVERFLOW, "%s has had as many points as there can be", vm_name(import->vm));
        if (continued->parent >= 0) {
                rc = manifest_read(import->vm, import->lineage.points[continued->parent].name, &parent, reterr);
                if (rc < 0)
                        return rc;
                one.parent = parent;
        }
        rc = import_point(&one, &source_failed, &reason);
        if (rc < 0 && source_failed && rc != -ECANCELED) {
                leave_out(import, point, reason.text);
                return 0;
        }
        if (rc < 0)
                return fail(reterr, rc, "%s/%s: %.*s", vm_name(import->vm), point->name, REASON_MAX / 2, reason.text);
        import->serial++;
        import->here[index] = true;
        tell(import->options->tell, import->options->context, vm_name(import->vm), point->name, NULL);
        return 0;
}

/* Points stand in the order of their names: parents come before their children. */
static int import_all(Import *import, Reason *reterr) {
        const atomic_bool *cancel = import->options->cancel;
        int rc = 0;

        for (size_t i = 0; i < import->lineage.count; i++)
                import->count += !has_point(import, import->lineage.points[i].name) &&
                                 !lineage_problem(&import->lineage.points[i]);
        for (size_t i = 0; rc >= 0 && i < import->lineage.count; i++) {
                CLEANUP(continued_clear) Continued continued = { 0 };

                if (cancel && atomic_load(cancel))
                        return fail(reterr, -ECANCELED, "interrupted");
                rc = find_continued(import, i, &continued, reterr);
                if (rc == 0)
                        rc = pass_over(import, i, &continued, reterr);
                if (rc == 0)
                        rc = import_one(import, i, &continued, reterr);
        }
        return rc < 0 ? rc : 0;
}

int import_vm(Repository *repository, Vm *from, const char *name, const ImportOptions *options, ImportTotals *totals,
              Reason *reterr) {
        CLEANUP(import_clear) Import import = { .from = from, .options = options, .totals = totals };
        CLEANUP(vm_freep) Vm *vm = NULL;
        CLEANUP(close_fd) int lock_fd = -1, from_fd = -1;
        const char *uuid = NULL;
        int rc;

        rc = points_lock_share(from, &from_fd, reterr);
        if (rc >= 0)
                rc = lineage_of_vm(from, &import.lineage, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; !uuid && i < import.lineage.count; i++)
                uuid = import.lineage.points[i].manifest ? import.lineage.points[i].manifest->vm_uuid : NULL;
        if (!uuid)
                return 0;
        rc = prepare_vm(repository, name, uuid, &vm, reterr);
        if (rc < 0)
                return rc;
        import.vm = vm;
        rc = capture_lock_take(vm, &lock_fd, reterr);
        if (rc == 0)
                rc = look_at_own(&import, reterr);
        return rc < 0 ? rc : import_all(&import, reterr);
}
