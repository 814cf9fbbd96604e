#include "machine/recovery-private.h"

#include <errno.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "machine/point-mount.h"
#include "util/directory.h"

#define LOOK_EVERY_MS 200
#define SYNC_EVERY 25 /* looks */
#define HARDLY_ANY (16u << 20) /* bytes: less is no room */

typedef struct Stream {
        Recovery *recovery;
        RestoreProgress *progress; /* of each disk */
        bool warned;               /* that the VM is stopped */
} Stream;

static bool is_full(const char *directory) {
        struct statvfs st;

        return statvfs(directory, &st) == 0 && (uint64_t) st.f_bavail * st.f_frsize < HARDLY_ANY;
}

/* That the VM is there, and what to do where it is not. */
static int look_at_vm(Stream *stream, Reason *reterr) {
        const Recovery *recovery = stream->recovery;
        MachineState state;
        int rc = hypervisor_state(recovery->hypervisor, recovery->note.uuid, &state, reterr);

        if (rc < 0)
                return rc;
        if (state == MACHINE_OFF || state == MACHINE_GONE)
                return fail(reterr, -EHOSTDOWN, "%s was shut off before its disks were its own: the same command starts it "
                                                "and goes on", recovery->note.name);
        if (state == MACHINE_STOPPED && !stream->warned) {
                stream->warned = true;
                recovery_warn(recovery, is_full(recovery->directory)
                                                ? "the VM stands still: there is no room for what it writes"
                                                : "the VM stands still: it could not write to its disks");
        }
        return 0;
}

static int check_cancelled(const Recovery *recovery, Reason *reterr) {
        if (!atomic_load(recovery->wish->cancel))
                return 0;
        return fail(reterr, -ECANCELED, "%s runs, but its disks still need the mount on %s: the same command goes on, "
                                        "--abort takes all away", recovery->note.name, recovery->mountpoint);
}

static int begin(Stream *stream, const RecoveryDisk *disk, Reason *reterr) {
        const Recovery *recovery = stream->recovery;
        uint64_t done, total;
        int rc = hypervisor_pull_progress(recovery->hypervisor, recovery->note.uuid, disk->name, &done, &total, reterr);

        if (rc != 0)
                return rc < 0 ? rc : 0; /* it goes on since it was begun earlier */
        return hypervisor_pull(recovery->hypervisor, recovery->note.uuid, disk->name, recovery->wish->rate, reterr);
}

/* 0: the job is no more. */
static int wait_for_end(Stream *stream, const RecoveryDisk *disk, RestoreProgress *progress, Reason *reterr) {
        const Recovery *recovery = stream->recovery;

        for (unsigned i = 0;; i++) {
                uint64_t done, total;
                int rc;

                rc = check_cancelled(recovery, reterr);
                if (rc < 0)
                        return rc;
                rc = hypervisor_pull_progress(recovery->hypervisor, recovery->note.uuid, disk->name, &done, &total, reterr);
                if (rc <= 0)
                        return rc;
                if (total > 0)
                        progress->done = (uint64_t) ((double) done / (double) total * (double) disk->size);
                recovery->wish->progress(recovery->wish->context, stream->progress, recovery->note.disk_count);
                rc = look_at_vm(stream, reterr);
                if (rc < 0)
                        return rc;
                usleep(LOOK_EVERY_MS * 1000);
                if (i % SYNC_EVERY == SYNC_EVERY - 1)
                        (void) syncfs(recovery->directory_fd); /* so that little is left for the end */
        }
}

/* Of a paused VM QEMU writes nothing down, and it is not ours to have it go on. */
static int settle_vm(Stream *stream, Reason *reterr) {
        const Recovery *recovery = stream->recovery;
        int rc;

        while ((rc = hypervisor_settle(recovery->hypervisor, recovery->note.uuid, reterr)) == -EAGAIN) {
                if (!stream->warned)
                        recovery_warn(recovery, "the VM is paused: its disks are done once it goes on");
                stream->warned = true;
                rc = check_cancelled(recovery, reterr);
                if (rc == 0)
                        rc = look_at_vm(stream, reterr);
                if (rc < 0)
                        return rc;
                usleep(LOOK_EVERY_MS * 1000);
        }
        return rc == -EHOSTDOWN ? look_at_vm(stream, reterr) ?: rc : rc;
}

/* QEMU keeps tables of a qcow2 image in memory, and says that it has streamed a disk without having written them: killed
 * then, the disk would lack what is in the backing file that it no longer has (until it gets it again: recovery.c). The bulk
 * is synced before the VM waits. */
static int settle(Stream *stream, RecoveryDisk *disk, Reason *reterr) {
        Recovery *recovery = stream->recovery;
        RecoveryNote *note = &recovery->note;
        int rc;

        if (syncfs(recovery->directory_fd) < 0)
                return fail_errno(reterr, -errno, "cannot sync %s", recovery->directory);
        note->paused = true;
        rc = recovery_note_write(recovery->own_fd, note, reterr);
        if (rc == 0)
                rc = settle_vm(stream, reterr);
        if (rc == 0 && syncfs(recovery->directory_fd) < 0)
                rc = fail_errno(reterr, -errno, "cannot sync %s", recovery->directory);
        if (rc < 0)
                return rc;
        note->paused = false;
        disk->settled = true;
        return recovery_note_write(recovery->own_fd, note, reterr);
}

static int stream_disk(Stream *stream, RecoveryDisk *disk, RestoreProgress *progress, Reason *reterr) {
        const Recovery *recovery = stream->recovery;
        bool needs = true;
        int rc;

        if (disk->settled)
                return 0;
        rc = hypervisor_disk_has_backing(recovery->hypervisor, recovery->note.uuid, disk->name, &needs, reterr);
        if (rc < 0)
                return rc;
        if (!needs)
                return settle(stream, disk, reterr);
        rc = begin(stream, disk, reterr);
        if (rc == 0)
                rc = wait_for_end(stream, disk, progress, reterr);
        if (rc == 0 || rc == -EIO)
                /* Where the VM went away, that is why. */
                rc = look_at_vm(stream, reterr) ?: rc;
        if (rc == 0)
                rc = hypervisor_disk_has_backing(recovery->hypervisor, recovery->note.uuid, disk->name, &needs, reterr);
        if (rc < 0)
                return rc;
        if (!needs)
                return settle(stream, disk, reterr);
        if (is_full(recovery->directory))
                return fail(reterr, -ENOSPC, "%s: there is no room left in %s: %s still needs the mount; make room, and the "
                                             "same command goes on", disk->name, recovery->directory, recovery->note.name);
        return fail(reterr, -EIO, "%s: streaming it has failed (libvirt's log says why): %s still needs the mount; the same "
                                  "command tries again", disk->name, recovery->note.name);
}

int recovery_stream(Recovery *recovery, Reason *reterr) {
        RecoveryNote *note = &recovery->note;
        CLEANUP(freep) RestoreProgress *progress = calloc(note->disk_count + 1, sizeof *progress);
        Stream stream = { .recovery = recovery, .progress = progress };

        if (!progress)
                return fail_oom(reterr);
        for (size_t i = 0; i < note->disk_count; i++)
                progress[i] = (RestoreProgress) { note->disks[i].name, 0, note->disks[i].size };
        for (size_t i = 0; i < note->disk_count; i++) {
                int rc = stream_disk(&stream, &note->disks[i], &progress[i], reterr);

                if (rc < 0)
                        return rc;
                progress[i].done = progress[i].total;
        }
        return 0;
}

int recovery_finish(Recovery *recovery, Reason *reterr) {
        int rc;

        close_fd(&recovery->hold_fd);
        recovery->hold_fd = -1;
        rc = point_mount_end(recovery->mountpoint, reterr);

        return rc == 0 ? remove_tree(recovery->directory_fd, recovery->own_name, reterr) : rc;
}
