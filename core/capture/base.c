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
        base->disks[disk].why = *why;
}

void base_give_up(Base *base, const Reason *why) {
        for (size_t i = 0; i < base->disk_count; i++)
                base_give_up_disk(base, i, why);
        base->manifest = manifest_unref(base->manifest);
        base->why = *why;
}

size_t base_disk_count(const Base *base) {
        size_t count = 0;

        for (size_t i = 0; i < base->disk_count; i++)
                count += base->disks[i].chain != NULL;
        return count;
}

static bool has_image(const SourceDisk *disk, const char *image) {
        for (size_t i = 0; i < disk->images.count; i++)
                if (strcmp(disk->images.items[i], image) == 0)
                        return true;
        return false;
}

/* Opens the parent's chain of a disk where it can be started from; else says why not. -ENOMEM alone fails. */
static int choose_disk(Vm *vm, const Manifest *manifest, const SourceDisk *disk, BaseDisk *ret) {
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        const ManifestDisk *parent = manifest_find_disk(manifest, disk->name);
        int rc;

        if (!disk->tracks_changes) {
                fail(&ret->why, 0, "%s", disk->why_not ?: "its changes are not tracked");
                return 0;
        }
        if (!parent) {
                fail(&ret->why, 0, "it is not in %s", manifest->name);
                return 0;
        }
        /* The image that was written to then must still be below: the same one, or under snapshots of it. */
        if (parent->images.count == 0 || !has_image(disk, parent->images.items[0])) {
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
        ret->chain = STEAL_PTR(chain);
        return 0;
}

static int read_base(Vm *vm, const char *name, Manifest **ret, Reason *why) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        int rc;

        rc = manifest_read(vm, name, &manifest, why);
        if (rc < 0)
                return rc;
        rc = point_check(vm, name, why);
        if (rc < 0)
                return rc;
        if (strcmp(manifest->vm_uuid, vm_uuid(vm)) != 0)
                return fail(why, -EBADMSG, "%s is of another VM", name);
        if (!manifest->checkpoint)
                return fail(why, -ENODATA, "%s has no checkpoint", name);
        *ret = STEAL_PTR(manifest);
        return 0;
}

/* The first disk, where none can say what changed: then it is their doing, not the point's, that there is no base. */
static const SourceDisk *untracked_disk(const SourceVm *vm) {
        for (size_t i = 0; i < vm->disk_count; i++)
                if (vm->disks[i].tracks_changes)
                        return NULL;
        return vm->disks;
}

int base_choose(Vm *vm, const char *newest, const SourceVm *source_vm, Base *ret, Reason *reterr) {
        CLEANUP(base_clear) Base base = { 0 };
        const SourceDisk *untracked = untracked_disk(source_vm);
        Reason none;
        int rc;

        base.disks = calloc(source_vm->disk_count, sizeof *base.disks);
        if (!base.disks)
                return fail_oom(reterr);
        base.disk_count = source_vm->disk_count;
        if (newest && untracked)
                rc = fail(&base.why, -ENOTSUP, "%s: %s", untracked->name,
                          untracked->why_not ?: "its changes are not tracked");
        else if (newest)
                rc = read_base(vm, newest, &base.manifest, &base.why);
        else
                rc = fail(&base.why, -ENOENT, "there is no point yet");
        if (rc == -ENOMEM)
                return fail_oom(reterr);

        for (size_t i = 0; base.manifest && i < base.disk_count; i++) {
                rc = choose_disk(vm, base.manifest, &source_vm->disks[i], &base.disks[i]);
                if (rc < 0)
                        return fail_oom(reterr);
        }
        if (base.manifest && base_disk_count(&base) == 0) {
                none = base.disks[0].why;
                fail_within(&none, 0, "%s", source_vm->disks[0].name);
                base_give_up(&base, &none);
        }
        if (base.manifest) {
                /* Without it there is no redefining where the hypervisor lost the checkpoint; it may not have. */
                rc = manifest_read_file(vm, base.manifest, BASE_CHECKPOINT_FILE, &base.definition, &(size_t) { 0 }, NULL);
                if (rc == -ENOMEM)
                        return fail_oom(reterr);
        }
        *ret = base;
        base = (Base) { 0 };
        return 0;
}
