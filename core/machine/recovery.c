#include "machine/recovery.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "machine/definition.h"
#include "machine/overlay.h"
#include "machine/place.h"
#include "machine/point-mount.h"
#include "machine/recovery-private.h"
#include "repository/points-lock.h"
#include "util/io.h"
#include "util/text.h"

static void recovery_clear(Recovery *recovery) {
        origin_clear(&recovery->origin);
        recovery->hypervisor = hypervisor_free(recovery->hypervisor);
        recovery_note_clear(&recovery->note);
        free(recovery->directory);
        free(recovery->own_name);
        free(recovery->mountpoint);
        close_fd(&recovery->directory_fd);
        close_fd(&recovery->hold_fd);
        close_fd(&recovery->own_fd);
        close_fd(&recovery->lock_fd);
        close_fd(&recovery->points_fd);
}

static void tell(const Recovery *recovery, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void tell(const Recovery *recovery, const char *format, ...) {
        char text[REASON_MAX];
        va_list args;

        va_start(args, format);
        vsnprintf(text, sizeof text, format, args);
        va_end(args);
        recovery->wish->tell(recovery->wish->context, text);
}

void recovery_warn(const Recovery *recovery, const char *line) {
        origin_say(recovery->wish->warn, recovery->wish->context, recovery->note.name, line);
}

/* ---- what is asked for ---- */

static int describe(Recovery *recovery, Reason *reterr) {
        const Origin *origin = &recovery->origin;
        RecoveryNote *note = &recovery->note;
        char uuid[UUID_STR_LEN];
        uuid_t fresh;

        uuid_generate(fresh);
        uuid_unparse_lower(fresh, uuid);
        note->name = strdup(recovery->wish->name ?: origin->name);
        note->uuid = strdup(recovery->wish->keep_identity ? origin->uuid : uuid);
        note->uri = strdup(hypervisor_uri(recovery->hypervisor));
        note->repository = strdup(repository_path(vm_repository(origin->vm)));
        note->vm = strdup(vm_name(origin->vm));
        note->point = strdup(origin->manifest->name);
        if (!note->name || !note->uuid || !note->uri || !note->repository || !note->vm || !note->point)
                return fail_oom(reterr);
        return origin_check_name(note->name, reterr);
}

static int find_place(Recovery *recovery, Reason *reterr) {
        int rc = place_resolve(recovery->hypervisor, recovery->wish->place, &recovery->directory, reterr);

        if (rc < 0)
                return rc;
        if (text_format(&recovery->own_name, "%s.recovery", recovery->note.name) < 0 ||
            text_format(&recovery->mountpoint, "%s/%s/mnt", recovery->directory, recovery->own_name) < 0)
                return fail_oom(reterr);
        recovery->directory_fd = open(recovery->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (recovery->directory_fd < 0)
                return fail_errno(reterr, -errno, "directory %s", recovery->directory);
        return 0;
}

/* ---- one that was cut off ---- */

/* 1 where there is one: its note takes the place of what was asked for, and it is locked. One that had not written down
 * anything yet has made nothing else. */
static int find_earlier(Recovery *recovery, Reason *reterr) {
        RecoveryNote earlier = { 0 };
        int rc;

        recovery->own_fd = open_beneath(recovery->directory_fd, recovery->own_name, O_RDONLY | O_DIRECTORY, 0);
        if (recovery->own_fd == -ENOENT)
                return 0;
        if (recovery->own_fd < 0)
                return fail_errno(reterr, recovery->own_fd, "cannot open %s/%s", recovery->directory, recovery->own_name);
        rc = recovery_note_lock(recovery->own_fd, &recovery->lock_fd, reterr);
        if (rc == 0)
                rc = recovery_note_read(recovery->own_fd, &earlier, reterr);
        if (rc < 0 && rc != -ENOENT)
                return fail_within(reterr, rc, "%s/%s", recovery->directory, recovery->own_name);
        if (rc == 0) {
                recovery_note_clear(&recovery->note);
                recovery->note = earlier;
        }
        return 1;
}

/* 1 where there is one that was cut off. */
static int begin(const RecoveryWish *wish, Recovery *recovery, Reason *reterr) {
        int rc;

        *recovery = (Recovery) { .wish = wish, .directory_fd = -1, .hold_fd = -1, .own_fd = -1, .lock_fd = -1,
                                 .points_fd = -1 };
        rc = points_lock_share(wish->vm, &recovery->points_fd, reterr);
        if (rc == 0)
                rc = origin_read(wish->vm, wish->point, &recovery->origin, reterr);
        if (rc == 0)
                rc = origin_open_hypervisor(&recovery->origin, wish->uri, &recovery->hypervisor, reterr);
        if (rc == 0)
                rc = describe(recovery, reterr);
        if (rc == 0)
                rc = find_place(recovery, reterr);
        return rc == 0 ? find_earlier(recovery, reterr) : rc;
}

/* That the one that was cut off is what is asked for now. */
static int check_same(const Recovery *recovery, Reason *reterr) {
        const RecoveryNote *note = &recovery->note;
        const Origin *origin = &recovery->origin;

        if (strcmp(note->vm, vm_name(origin->vm)) == 0 &&
            (recovery->wish->newest || strcmp(note->point, origin->manifest->name) == 0) &&
            strcmp(note->repository, repository_path(vm_repository(origin->vm))) == 0 &&
            strcmp(note->uri, hypervisor_uri(recovery->hypervisor)) == 0)
                return 0;
        return fail(reterr, -EEXIST, "a VM %s is being recovered in %s already, at %s and from %s/%s of %s: name that to go "
                                     "on with it, with --abort to take it away", note->name, recovery->directory, note->uri,
                    note->vm, note->point, note->repository);
}

/* A disk that had been streamed but was not on stable storage yet has its backing file put below it again: what QEMU did not
 * come to write is taken from there, once more. What the guest has zeroed is marked in the image, and stays so. */
static int attach_again(Recovery *recovery, const RecoveryDisk *disk, Reason *reterr) {
        CLEANUP(freep) char *definition = NULL, *changed = NULL;
        bool has = false;
        int rc;

        rc = overlay_attach(disk->path, disk->backing, recovery->wish->cancel, reterr);
        if (rc == 0)
                rc = hypervisor_disk_has_backing(recovery->hypervisor, recovery->note.uuid, disk->name, &has, reterr);
        if (rc < 0 || has)
                return rc;
        rc = hypervisor_definition(recovery->hypervisor, recovery->note.uuid, &definition, reterr);
        if (rc == 0)
                rc = definition_set_backing(definition, disk->name, disk->backing, &changed, reterr);
        return rc == 0 ? hypervisor_define(recovery->hypervisor, changed, reterr) : rc;
}

/* The VM needs the mount where it is started, and where it runs it has it open. */
static int start_again(Recovery *recovery, Reason *reterr) {
        const RecoveryNote *note = &recovery->note;
        PointMountState mount = point_mount_state(recovery->mountpoint);
        MachineState state;
        int rc;

        rc = hypervisor_state(recovery->hypervisor, note->uuid, &state, reterr);
        if (rc < 0)
                return rc;
        if (state == MACHINE_GONE)
                return fail(reterr, -ENOENT, "%s does not know %s any more: --abort takes away what is left of its recovery",
                            hypervisor_shown(recovery->hypervisor), note->name);
        if (mount == POINT_MOUNT_DEAD && state != MACHINE_OFF)
                return fail(reterr, -EIO, "the process that %s reads its disks from has died: pull its plug ('virsh destroy "
                                          "%s'), and the same command starts it from what it has written", note->name,
                            note->name);
        if (mount == POINT_MOUNT_LIVES)
                recovery_hold_mount(recovery);
        if (state == MACHINE_STOPPED || (state == MACHINE_RUNS && note->paused))
                return hypervisor_resume(recovery->hypervisor, note->uuid, reterr);
        if (state != MACHINE_OFF)
                return 0;
        if (mount == POINT_MOUNT_DEAD)
                rc = point_mount_end(recovery->mountpoint, reterr);
        if (rc == 0 && mount != POINT_MOUNT_LIVES)
                rc = recovery_mount(recovery, reterr);
        for (size_t i = 0; i < note->disk_count && rc == 0; i++)
                if (!note->disks[i].settled)
                        rc = attach_again(recovery, &note->disks[i], reterr);
        return rc == 0 ? hypervisor_start(recovery->hypervisor, note->uuid, reterr) : rc;
}

/* ---- a new one ---- */

/* What was made goes again; what cannot go is told beside the cause. */
static int give_up(Recovery *recovery, int rc, Reason *reterr) {
        Reason reason;

        if (recovery_take_away(recovery, &reason) < 0) {
                tell(recovery, "%s", reason.text);
                tell(recovery, "%s/%s stays: the same command with --abort tries again to take it away",
                     recovery->directory, recovery->own_name);
        }
        return rc;
}

static int make(Recovery *recovery, Reason *reterr) {
        RecoveryNote *note = &recovery->note;
        int rc;

        rc = hypervisor_check_free(recovery->hypervisor, note->name, recovery->wish->keep_identity ? note->uuid : NULL,
                                   reterr);
        if (rc < 0)
                return rc;
        rc = recovery_build(recovery, reterr);
        if (rc == 0 && atomic_load(recovery->wish->cancel))
                rc = fail(reterr, -EINTR, "interrupted: nothing is left of it");
        if (rc < 0)
                return give_up(recovery, rc, reterr);
        /* Before it is so: from its start on the VM has data of its own. */
        note->started = true;
        rc = recovery_note_write(recovery->own_fd, note, reterr);
        if (rc == 0)
                rc = hypervisor_start(recovery->hypervisor, note->uuid, reterr);
        if (rc < 0)
                return give_up(recovery, rc, reterr);
        tell(recovery, "%s runs from %s/%s; its disks are streamed to %s", note->name, note->vm, note->point,
             recovery->directory);
        return 0;
}

/* As if it had never been: what is asked for now may be another point. */
static int clean_up(Recovery *recovery, Reason *reterr) {
        int rc;

        tell(recovery, "%s/%s, which a recovery left that had not come to starting a VM, is taken away",
             recovery->directory, recovery->own_name);
        rc = recovery_take_away(recovery, reterr);
        if (rc < 0)
                return rc;
        close_fd(&recovery->own_fd);
        close_fd(&recovery->lock_fd);
        recovery->own_fd = recovery->lock_fd = -1;
        recovery_note_clear(&recovery->note);
        return describe(recovery, reterr);
}

int recovery_run(const RecoveryWish *wish, char **ret_name, Reason *reterr) {
        CLEANUP(recovery_clear) Recovery recovery;
        int rc;

        rc = begin(wish, &recovery, reterr);
        if (rc < 0)
                return rc;
        if (rc == 1 && recovery.note.started) {
                rc = check_same(&recovery, reterr);
                if (rc == 0) {
                        tell(&recovery, "goes on with the recovery of %s from %s/%s that was cut off",
                             recovery.note.name, recovery.note.vm, recovery.note.point);
                        rc = start_again(&recovery, reterr);
                }
        } else {
                rc = rc == 1 ? clean_up(&recovery, reterr) : 0;
                if (rc == 0)
                        rc = make(&recovery, reterr);
        }
        if (rc == 0)
                rc = recovery_stream(&recovery, reterr);
        if (rc == 0)
                rc = recovery_finish(&recovery, reterr);
        if (rc == 0)
                *ret_name = STEAL_PTR(recovery.note.name);
        return rc;
}

int recovery_abort(const RecoveryWish *wish, char **ret_name, Reason *reterr) {
        CLEANUP(recovery_clear) Recovery recovery;
        int rc;

        rc = begin(wish, &recovery, reterr);
        if (rc < 0)
                return rc;
        if (rc == 0)
                return fail(reterr, -ENOENT, "no VM %s is being recovered in %s", recovery.note.name, recovery.directory);
        rc = recovery.note.started ? check_same(&recovery, reterr) : 0;
        if (rc == 0)
                rc = recovery_take_away(&recovery, reterr);
        if (rc == 0)
                *ret_name = STEAL_PTR(recovery.note.name);
        return rc;
}
