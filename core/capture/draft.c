#include "capture/draft.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "capture/leftovers.h"
#include "codec/checksum.h"
#include "util/directory.h"
#include "util/file.h"
#include "util/text.h"

#define NAME_TRIES 100 /* other names for a point when one is taken meanwhile */

int draft_random_text(char ret[static 9], Reason *reterr) {
        uint32_t random;

        if (getrandom(&random, sizeof random, 0) != sizeof random)
                return fail_errno(reterr, -errno, "no random numbers");
        snprintf(ret, 9, "%08x", random);
        return 0;
}

/* Serials grow with names, so the newest good point has the greatest; damaged ones may have those that follow. */
static int next_serial(Vm *vm, uint32_t *ret, Reason *reterr) {
        CLEANUP(strings_free) Strings points = { 0 };
        uint32_t serial = 1;
        int rc;

        rc = vm_list_points(vm, &points, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = points.count; i > 0; i--, serial++) {
                CLEANUP(manifest_unrefp) Manifest *manifest = NULL;

                if (manifest_read(vm, points.items[i - 1], &manifest, NULL) == 0) {
                        serial += manifest->serial;
                        break;
                }
        }
        if (serial > SERIAL_MAX)
                return fail(reterr, -EOVERFLOW, "%s has had as many points as there can be", vm_name(vm));
        *ret = serial;
        return 0;
}

/* data/CAPTURE, or a file in it where name is not NULL. The caller frees it; NULL without memory. */
static char *draft_path(const Draft *draft, const char *name) {
        char *path;

        return text_format(&path, "data/%s%s%s", draft->manifest->capture, name ? "/" : "", name ?: "") < 0 ? NULL : path;
}

/* The rest of a manifest that has a name, and its directory. */
static int make_place(Draft *draft, const char *checkpoint, Reason *reterr) {
        CLEANUP(freep) char *path = NULL;
        Manifest *manifest = draft->manifest;
        char random[9];
        int rc;

        rc = draft_random_text(random, reterr);
        if (rc < 0)
                return rc;
        manifest->vm = strdup(vm_name(draft->vm));
        manifest->vm_uuid = strdup(vm_uuid(draft->vm));
        manifest->checkpoint = checkpoint ? strdup(checkpoint) : NULL;
        (void) text_format(&manifest->capture, "%s.%s", manifest->name, random);
        if (manifest->capture && text_format(&manifest->place, "vms/%s/data/%s/", vm_name(draft->vm), manifest->capture) < 0)
                manifest->place = NULL;
        if (!manifest->vm || !manifest->vm_uuid || (checkpoint && !manifest->checkpoint) || !manifest->place)
                return fail_oom(reterr);

        path = draft_path(draft, NULL);
        if (!path)
                return fail_oom(reterr);
        rc = make_directory(vm_fd(draft->vm), "data", reterr);
        if (rc < 0 && rc != -EEXIST)
                return rc;
        return make_directory(vm_fd(draft->vm), path, reterr);
}

int draft_begin(Draft *draft, const char *newest, struct timespec moment, const char *checkpoint, Reason *reterr) {
        Manifest *manifest;
        int rc;

        rc = manifest_new(&draft->manifest);
        if (rc < 0)
                return fail_oom(reterr);
        manifest = draft->manifest;
        if (newest[0])
                (void) manifest_read(draft->vm, newest, &draft->previous, NULL);
        rc = point_name_next(moment.tv_sec, newest, manifest->name);
        if (rc < 0)
                return fail_errno(reterr, rc, "no name for the point");
        rc = next_serial(draft->vm, &manifest->serial, reterr);
        if (rc < 0)
                return rc;
        manifest->time = (struct timespec) { .tv_sec = moment.tv_sec }; /* as exact as the name */
        return make_place(draft, checkpoint, reterr);
}

int draft_begin_named(Draft *draft, const char *name, uint32_t serial, struct timespec moment, Manifest *parent,
                      Reason *reterr) {
        Manifest *manifest;

        if (manifest_new(&draft->manifest) < 0)
                return fail_oom(reterr);
        manifest = draft->manifest;
        snprintf(manifest->name, sizeof manifest->name, "%s", name);
        manifest->serial = serial;
        manifest->time = moment;
        if (parent) {
                draft->previous = manifest_ref(parent);
                manifest->parent = strdup(parent->name);
                if (!manifest->parent)
                        return fail_oom(reterr);
        }
        return make_place(draft, NULL, reterr);
}

/* A kernel with its initrd is as large as many an incremental: where nothing has changed it gets a second name. */
static bool link_previous(const Draft *draft, const char *path, const char *name, const void *content, size_t length) {
        CLEANUP(freep) char *before = NULL, *previous = NULL;
        size_t previous_length;

        if (!draft->previous ||
            manifest_read_file(draft->vm, draft->previous, name, &before, &previous_length, NULL) < 0 ||
            previous_length != length || memcmp(before, content, length) != 0)
                return false;
        if (text_format(&previous, "data/%s/%s", draft->previous->capture, name) < 0)
                return false;
        return linkat(vm_fd(draft->vm), previous, vm_fd(draft->vm), path, 0) == 0;
}

int draft_keep_file(Draft *draft, const char *name, const void *content, size_t length, Reason *reterr) {
        Manifest *manifest = draft->manifest;
        CLEANUP(freep) char *path = draft_path(draft, name);
        ManifestFile *grown;
        bool linked;
        int rc;

        grown = reallocarray(manifest->files, manifest->file_count + 1, sizeof *grown);
        if (!grown || !path) {
                manifest->files = grown ?: manifest->files;
                return fail_oom(reterr);
        }
        manifest->files = grown;
        linked = link_previous(draft, path, name, content, length);
        if (!linked) {
                rc = create_file(vm_fd(draft->vm), path, content, length, reterr);
                if (rc < 0)
                        return rc;
        }
        grown[manifest->file_count] = (ManifestFile) {
                .name = strdup(name), .length = length, .seal = checksum(content, length), .linked = linked,
        };
        if (!grown[manifest->file_count].name)
                return fail_oom(reterr);
        manifest->file_count++;
        return 0;
}

static int sync_data(Draft *draft, Reason *reterr) {
        CLEANUP(freep) char *path = draft_path(draft, NULL);
        int rc;

        if (!path)
                return fail_oom(reterr);
        rc = sync_directory(vm_fd(draft->vm), path);
        if (rc == 0)
                rc = sync_directory(vm_fd(draft->vm), "data");
        return rc < 0 ? fail_errno(reterr, rc, "cannot sync %s/data", vm_name(draft->vm)) : 0;
}

int draft_commit(Draft *draft, Guardian *guardian, Reason *reterr) {
        Manifest *manifest = draft->manifest;
        int rc;

        rc = sync_data(draft, reterr);
        if (rc < 0)
                return rc;
        rc = -EEXIST;
        for (int tries = 0; rc == -EEXIST && tries < NAME_TRIES; tries++) {
                if (tries > 0) {
                        char taken[POINT_NAME_MAX];

                        memcpy(taken, manifest->name, sizeof taken);
                        rc = point_name_next(manifest->time.tv_sec, taken, manifest->name);
                        if (rc < 0)
                                return fail_errno(reterr, rc, "no name for the point");
                }
                rc = guardian_expect(guardian, manifest->name, manifest->capture, reterr);
                if (rc < 0)
                        return rc;
                draft->commit_tried = true;
                rc = manifest_commit(draft->vm, manifest, reterr);
        }
        /* It may be there all the same, and whole, as what it names has been synced. */
        if (rc < 0 && leftovers_committed(draft->vm, manifest->name, manifest->capture))
                return 1;
        return rc;
}

int draft_commit_named(Draft *draft, Reason *reterr) {
        int rc = sync_data(draft, reterr);

        if (rc < 0)
                return rc;
        draft->commit_tried = true;
        return manifest_commit(draft->vm, draft->manifest, reterr);
}

void draft_discard(Draft *draft) {
        CLEANUP(freep) char *path = NULL;

        if (draft->commit_tried)
                (void) leftovers_remove_data(draft->vm, NULL);
        else if (draft->manifest && draft->manifest->capture && (path = draft_path(draft, NULL)))
                (void) remove_tree(vm_fd(draft->vm), path, NULL);
}

void draft_clear(Draft *draft) {
        draft->manifest = manifest_unref(draft->manifest);
        draft->previous = manifest_unref(draft->previous);
}
