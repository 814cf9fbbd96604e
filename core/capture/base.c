#include "capture/base.h"

#include <errno.h>
#include <string.h>

#include "repository/point.h"

void base_clear(Base *base) {
        for (size_t i = 0; i < base->disk_count; i++)
                chain_unref(base->disks[i].chain);
        free(base->disks);
        free(base->definition);
        manifest_unref(base->manifest);
        *base = (Base) { 0 };
}

void base_give_up_disk(Base *base, size_t disk, const Reason *why) {
        base->disks[disk].chain = chain_unref(base->disks[disk].chain);
        base->disks[disk].compared = false;
        base->disks[disk].why = *why;
}

void base_give_up(Base *base, const Reason *why) {
        for (size_t i = 0; i < base->disk_count; i++)
                base_give_up_disk(base, i, why);
        base->manifest = manifest_unref(base->manifest);
        base->why = *why;
}

void base_compare_disk(Base *base, size_t disk, const Reason *why) {
        if (base_disk_by_bitmap(&base->disks[disk])) {
                base->disks[disk].compared = true;
                base->disks[disk].why = *why;
        }
}

void base_compare(Base *base, const Reason *why) {
        for (size_t i = 0; i < base->disk_count; i++)
                base_compare_disk(base, i, why);
}

void base_explain_disk(const Base *base, size_t disk, Reason *ret) {
        const BaseDisk *from = &base->disks[disk];

        if (from->compared)
                fail(ret, 0, "compared with %s, as %.*s", base->manifest->name, REASON_MAX - 80, from->why.text);
        else
                fail(ret, 0, "captured in full: %.*s", REASON_MAX - 80, from->why.text);
}

size_t base_disk_count(const Base *base) {
        size_t count = 0;

        for (size_t i = 0; i < base->disk_count; i++)
                count += base->disks[i].chain != NULL;
        return count;
}

size_t base_bitmap_count(const Base *base) {
        size_t count = 0;

        for (size_t i = 0; i < base->disk_count; i++)
                count += base_disk_by_bitmap(&base->disks[i]);
        return count;
}

static bool has_image(const SourceDisk *disk, const char *image) {
        for (size_t i = 0; i < disk->images.count; i++)
                if (strcmp(disk->images.items[i], image) == 0)
                        return true;
        return false;
}

/* Whether a bitmap can tell what changed, and why not. */
static void choose_way(const SourceDisk *disk, const ManifestDisk *parent, BaseDisk *ret) {
        ret->compared = true;
        if (!disk->tracks_changes)
                fail(&ret->why, 0, "%s", disk->why_not ?: "its changes are not tracked");
        else if (parent->images.count == 0 || disk->images.count == 0)
                fail(&ret->why, 0, "its image cannot be told from another one");
        else
                ret->compared = false;
}

/* Opens the parent's chain of a disk where it can be started from; else says why not. -ENOMEM alone fails. */
static int choose_disk(Vm *vm, const Manifest *manifest, const SourceDisk *disk, BaseDisk *ret) {
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        const ManifestDisk *parent = manifest_find_disk(manifest, disk->name);
        int rc;

        if (!parent) {
                fail(&ret->why, 0, "it is not in %s", manifest->name);
                return 0;
        }
        /* The image that was written to then must still be below: the same one, or under snapshots of it. */
        if (parent->images.count > 0 && disk->images.count > 0 && !has_image(disk, parent->images.items[0])) {
                fail(&ret->why, 0, "its image is another one than in %s", manifest->name);
                return 0;
        }
        rc = chain_open(vm, manifest->name, disk->name, &chain, &ret->why);
        if (rc < 0)
                return rc == -ENOMEM ? rc : 0;
        if (chain_damage(chain)) {
                fail(&ret->why, 0, "%s", chain_damage(chain));
                return 0;
        }
        choose_way(disk, parent, ret);
        ret->gaps = parent->unreadable > 0 || parent->backing;
        ret->chain = STEAL_PTR(chain);
        return 0;
}

static bool is_named(const char *checkpoint, const char *name) {
        return checkpoint && strcmp(checkpoint, name) == 0;
}

/* The newest point, or the last full one that it descends from. *no_bitmap: why its checkpoint is not to be used, "" where
 * it is. */
static int find_base(Vm *vm, const char *newest, bool differential, Manifest **ret, Reason *no_bitmap, Reason *why) {
        CLEANUP(manifest_unrefp) Manifest *first = NULL, *manifest = NULL;
        int rc;

        rc = manifest_read(vm, newest, &first, why);
        if (rc < 0)
                return rc;
        manifest = manifest_ref(first);
        /* It ends: a parent's name sorts before its child's. */
        while (differential && manifest->kind != POINT_FULL) {
                Manifest *parent;

                rc = manifest_read(vm, manifest->parent, &parent, why);
                if (rc < 0)
                        return rc;
                manifest_unref(manifest);
                manifest = parent;
        }
        *no_bitmap = REASON_INIT;
        if (!manifest->checkpoint)
                fail(no_bitmap, 0, "%s has no checkpoint", manifest->name);
        else if (!is_named(first->checkpoint, manifest->checkpoint) &&
                 !is_named(first->full_checkpoint, manifest->checkpoint))
                fail(no_bitmap, 0, "the checkpoint of %s was not kept", manifest->name);
        *ret = STEAL_PTR(manifest);
        return 0;
}

static int read_base(Vm *vm, const char *newest, bool differential, Manifest **ret, Reason *no_bitmap, Reason *why) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        int rc;

        rc = find_base(vm, newest, differential, &manifest, no_bitmap, why);
        if (rc < 0)
                return rc;
        rc = point_check(vm, manifest->name, why);
        if (rc < 0)
                return rc;
        if (strcmp(manifest->vm_uuid, vm_uuid(vm)) != 0)
                return fail(why, -EBADMSG, "%s is of another VM", manifest->name);
        *ret = STEAL_PTR(manifest);
        return 0;
}

int base_choose(Vm *vm, const char *newest, bool differential, const SourceVm *source_vm, Base *ret, Reason *reterr) {
        CLEANUP(base_clear) Base base = { .differential = differential };
        Reason none, no_bitmap = REASON_INIT;
        int rc;

        base.disks = calloc(source_vm->disk_count, sizeof *base.disks);
        if (!base.disks)
                return fail_oom(reterr);
        base.disk_count = source_vm->disk_count;
        if (newest)
                rc = read_base(vm, newest, differential, &base.manifest, &no_bitmap, &base.why);
        else
                rc = fail(&base.why, -ENOENT, "there is no point yet");
        if (rc == -ENOMEM)
                return fail_oom(reterr);

        for (size_t i = 0; base.manifest && i < base.disk_count; i++) {
                rc = choose_disk(vm, base.manifest, &source_vm->disks[i], &base.disks[i]);
                if (rc < 0)
                        return fail_oom(reterr);
        }
        if (no_bitmap.text[0])
                base_compare(&base, &no_bitmap);
        if (base.manifest && base_disk_count(&base) == 0) {
                none = base.disks[0].why;
                fail_within(&none, 0, "%s", source_vm->disks[0].name);
                base_give_up(&base, &none);
        }
        if (base_bitmap_count(&base) > 0) {
                /* Without it there is no redefining where the hypervisor lost the checkpoint; it may not have. */
                rc = manifest_read_file(vm, base.manifest, BASE_CHECKPOINT_FILE, &base.definition, &(size_t) { 0 }, NULL);
                if (rc == -ENOMEM)
                        return fail_oom(reterr);
        }
        *ret = base;
        base = (Base) { 0 };
        return 0;
}
