#include "capture/leftovers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "util/directory.h"

bool leftovers_committed(Vm *vm, const char *point, const char *capture) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;

        return manifest_read(vm, point, &manifest, NULL) == 0 && strcmp(manifest->capture, capture) == 0;
}

static bool has_name(const Strings *sorted, const char *name, size_t length) {
        char wanted[POINT_NAME_MAX];

        if (length >= sizeof wanted)
                return false;
        memcpy(wanted, name, length);
        wanted[length] = 0;
        return strings_find(sorted, wanted);
}

static size_t point_part(const char *capture) {
        return strcspn(capture, ".");
}

/* A capture's directory begins with the name of its point. So where each is the only one of a point that is there, all
 * are in use, and a VM of thousands of points need not read their manifests. */
static bool all_look_used(const Strings *captures, const Strings *points) {
        for (size_t i = 0; i < captures->count; i++) {
                const char *name = captures->items[i];
                const char *before = i > 0 ? captures->items[i - 1] : "";
                size_t length = point_part(name);

                if (!has_name(points, name, length))
                        return false;
                if (point_part(before) == length && memcmp(name, before, length) == 0)
                        return false;
        }
        return true;
}

/* The captures that manifests name, sorted. A negative errno where one cannot be read. */
static int list_named(Vm *vm, const Strings *points, Strings *ret) {
        for (size_t i = 0; i < points->count; i++) {
                CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
                int rc;

                rc = manifest_read(vm, points->items[i], &manifest, NULL);
                if (rc == 0)
                        rc = strings_add(ret, manifest->capture);
                if (rc < 0)
                        return rc;
        }
        strings_sort(ret);
        return 0;
}

int leftovers_remove_data(Vm *vm, Reason *reterr) {
        CLEANUP(strings_free) Strings captures = { 0 }, points = { 0 }, named = { 0 };
        int rc;

        rc = list_directory(vm_fd(vm), "data", &captures, reterr);
        if (rc == -ENOENT)
                return 0;
        if (rc < 0)
                return rc;
        rc = vm_list_points(vm, &points, reterr);
        if (rc < 0)
                return rc;
        if (all_look_used(&captures, &points))
                return 0;
        rc = list_named(vm, &points, &named);
        if (rc == -ENOMEM)
                return fail_oom(reterr);
        if (rc < 0)
                return 0;
        for (size_t i = 0; i < captures.count; i++) {
                char path[sizeof "data/" + 256];

                if (strings_find(&named, captures.items[i]))
                        continue;
                snprintf(path, sizeof path, "data/%s", captures.items[i]);
                rc = remove_tree(vm_fd(vm), path, reterr);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

int leftovers_keep_checkpoints(Source *source, const Manifest *newest, Reason *reterr) {
        const char *keep[2];
        size_t count = 0;

        if (newest && newest->checkpoint)
                keep[count++] = newest->checkpoint;
        if (newest && newest->full_checkpoint)
                keep[count++] = newest->full_checkpoint;
        return source_keep_checkpoints(source, keep, count, reterr);
}

int leftovers_delete_checkpoints(Vm *vm, Source *source, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *newest = NULL;
        CLEANUP(strings_free) Strings points = { 0 };
        int rc;

        rc = vm_list_points(vm, &points, reterr);
        if (rc < 0)
                return rc;
        if (points.count > 0) {
                rc = manifest_read(vm, points.items[points.count - 1], &newest, reterr);
                if (rc < 0)
                        return rc;
        }
        return leftovers_keep_checkpoints(source, newest, reterr);
}
