#include "machine/recovery-private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "machine/definition.h"
#include "machine/kept-files.h"
#include "machine/overlay.h"
#include "machine/place.h"
#include "machine/point-mount.h"
#include "util/directory.h"
#include "util/io.h"
#include "util/text.h"

#define MOUNT_DIRECTORY "mnt"

/* ---- what is going to be made ---- */

static int plan_disk(const Recovery *recovery, const ManifestDisk *disk, RecoveryDisk *planned) {
        const RecoveryNote *note = &recovery->note;

        planned->name = strdup(disk->name);
        planned->size = disk->size;
        (void) text_format(&planned->path, "%s/%s-%s.qcow2", recovery->directory, note->name, disk->name);
        (void) text_format(&planned->backing, "%s/%s/%s/%s.raw", recovery->mountpoint, note->vm, note->point, disk->name);
        return planned->name && planned->path && planned->backing ? 0 : -ENOMEM;
}

static int plan(Recovery *recovery, Reason *reterr) {
        const Manifest *manifest = recovery->origin.manifest;
        RecoveryNote *note = &recovery->note;
        uint64_t bytes = 0;
        struct stat st;

        note->disks = calloc(manifest->disk_count + 1, sizeof *note->disks);
        if (!note->disks)
                return fail_oom(reterr);
        for (size_t i = 0; i < manifest->disk_count; i++) {
                RecoveryDisk *disk = &note->disks[note->disk_count++];
                uint64_t allocated = manifest_disk_allocated(&manifest->disks[i]);

                if (plan_disk(recovery, &manifest->disks[i], disk) < 0)
                        return fail_oom(reterr);
                if (lstat(disk->path, &st) == 0)
                        return fail(reterr, -EEXIST, "%s is there already: it is not overwritten", disk->path);
                if (allocated != ALLOCATED_UNKNOWN && __builtin_add_overflow(bytes, allocated, &bytes))
                        bytes = UINT64_MAX;
        }
        return place_check_room(recovery->directory, bytes, reterr);
}

/* ---- made ---- */

/* QEMU goes through these directories to the mount. */
static int make_own_directory(Recovery *recovery, Reason *reterr) {
        mode_t mode = hypervisor_uid(recovery->hypervisor) == geteuid() ? 0700 : 0711;

        if (mkdirat(recovery->directory_fd, recovery->own_name, mode) < 0)
                return fail_errno(reterr, -errno, "cannot make %s/%s", recovery->directory, recovery->own_name);
        recovery->own_fd = open_beneath(recovery->directory_fd, recovery->own_name, O_RDONLY | O_DIRECTORY, 0);
        if (recovery->own_fd < 0)
                return fail_errno(reterr, recovery->own_fd, "cannot open %s/%s", recovery->directory, recovery->own_name);
        if (fchmod(recovery->own_fd, mode) < 0 || mkdirat(recovery->own_fd, MOUNT_DIRECTORY, mode) < 0)
                return fail_errno(reterr, -errno, "cannot make %s", recovery->mountpoint);
        return recovery_note_lock(recovery->own_fd, &recovery->lock_fd, reterr);
}

void recovery_hold_mount(Recovery *recovery) {
        close_fd(&recovery->hold_fd);
        recovery->hold_fd = open(recovery->mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

int recovery_mount(Recovery *recovery, Reason *reterr) {
        CLEANUP(freep) char *held_by = NULL;
        const PointMountWish wish = {
                .program = recovery->wish->program,
                .repository = recovery->note.repository,
                .mountpoint = recovery->mountpoint,
                .hypervisor = recovery->hypervisor,
                .held_by = text_format(&held_by, "the recovery of %s", recovery->note.name) < 0 ? "a recovery" : held_by,
        };
        int rc = point_mount_start(&wish, recovery->wish->cancel, reterr);

        if (rc == 0)
                recovery_hold_mount(recovery);
        return rc;
}

static int define(Recovery *recovery, const KeptFiles *kept, Reason *reterr) {
        const RecoveryNote *note = &recovery->note;
        CLEANUP(freep) MachineDisk *disks = calloc(note->disk_count + 1, sizeof *disks);
        CLEANUP(freep) char *definition = NULL;
        CLEANUP(strings_free) Strings notes = { 0 };
        DefinitionWish wish = {
                .name = note->name,
                .uuid = recovery->wish->keep_identity ? NULL : note->uuid,
                .disks = disks,
                .disk_count = note->disk_count,
                .files = kept->files,
                .file_count = kept->count,
                .unplugged = recovery->wish->unplugged,
                .emulated = !hypervisor_has_kvm(recovery->hypervisor),
        };
        int rc;

        if (!disks)
                return fail_oom(reterr);
        for (size_t i = 0; i < note->disk_count; i++)
                disks[i] = (MachineDisk) { .name = note->disks[i].name, .path = note->disks[i].path, .format = "qcow2",
                                           .backing = note->disks[i].backing };
        rc = definition_make(recovery->origin.definition, &wish, &definition, &notes, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < notes.count; i++)
                recovery_warn(recovery, notes.items[i]);
        return hypervisor_define(recovery->hypervisor, definition, reterr);
}

static int write_kept(Recovery *recovery, KeptFiles *kept, Reason *reterr) {
        CLEANUP(freep) char *said = NULL;
        KeptWish wish = {
                .vm = recovery->origin.vm,
                .manifest = recovery->origin.manifest,
                .definition = recovery->origin.definition,
                .directory = recovery->directory,
                .name = recovery->note.name,
                .uuid = recovery->note.uuid,
                .hypervisor = recovery->hypervisor,
        };
        int rc = kept_files_write(&wish, kept, &said, reterr);

        if (rc == 0 && said)
                recovery_warn(recovery, said);
        for (size_t i = 0; i < kept->made.count; i++)
                if (strings_add(&recovery->note.made, kept->made.items[i]) < 0)
                        return fail_oom(reterr);
        return rc;
}

int recovery_build(Recovery *recovery, Reason *reterr) {
        CLEANUP(kept_files_clear) KeptFiles kept = { 0 };
        int rc;

        rc = plan(recovery, reterr);
        if (rc == 0)
                rc = make_own_directory(recovery, reterr);
        if (rc == 0)
                rc = recovery_note_write(recovery->own_fd, &recovery->note, reterr);
        if (rc == 0)
                rc = recovery_mount(recovery, reterr);
        for (size_t i = 0; i < recovery->note.disk_count && rc == 0; i++) {
                const RecoveryDisk *disk = &recovery->note.disks[i];

                rc = overlay_make(disk->path, disk->backing, disk->size, recovery->wish->cancel, reterr);
        }
        if (rc == 0)
                rc = write_kept(recovery, &kept, reterr);
        if (rc == 0)
                rc = recovery_note_write(recovery->own_fd, &recovery->note, reterr);
        return rc == 0 ? define(recovery, &kept, reterr) : rc;
}

/* ---- and taken away ---- */

/* A VM that has the UUID but none of our disks is somebody else's. */
static int end_vm(const Recovery *recovery, Reason *reterr) {
        const RecoveryNote *note = &recovery->note;
        bool ours = false;
        int rc = 0;

        for (size_t i = 0; i < note->disk_count && rc == 0 && !ours; i++)
                rc = hypervisor_has_image(recovery->hypervisor, note->uuid, note->disks[i].name, note->disks[i].path, &ours,
                                          reterr);
        if (rc < 0 || !ours)
                return rc;
        rc = hypervisor_destroy(recovery->hypervisor, note->uuid, reterr);
        return rc == 0 ? hypervisor_undefine(recovery->hypervisor, note->uuid, reterr) : rc;
}

int recovery_take_away(Recovery *recovery, Reason *reterr) {
        const RecoveryNote *note = &recovery->note;
        int rc;

        if (recovery->own_fd < 0)
                return 0; /* nothing was made yet */
        rc = end_vm(recovery, reterr);
        close_fd(&recovery->hold_fd);
        recovery->hold_fd = -1;
        if (rc == 0)
                rc = point_mount_end(recovery->mountpoint, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < note->disk_count; i++)
                if (unlink(note->disks[i].path) < 0 && errno != ENOENT)
                        return fail_errno(reterr, -errno, "cannot remove %s", note->disks[i].path);
        kept_files_remove(&note->made);
        return remove_tree(recovery->directory_fd, recovery->own_name, reterr);
}
