/* core/machine/recovery-note.h - what a recovery has made, kept beside it until it is done: whoever finds it can go on, or
 * take all of it away.
 *
 * DIRECTORY/NAME.recovery/
 *     recovery.json    sealed JSON: {"format": "virtbackupfs recovery", "version": 1, "features": [], "name", "uuid",
 *                      "uri", "repository", "vm", "point", "started" (whether the VM has run), "paused" (whether it
 *                      may stand still because of us), "disks": [{"name", "path", "backing", "size", "settled"}],
 *                      "made": [PATH, …]}
 *     lock             locked by the process that works on it
 *     mnt/             the mount of the repository
 * Overlays are written down before they are made, other files right after. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/reason.h"
#include "util/strings.h"

typedef struct RecoveryDisk {
        char *name;
        char *path;    /* of the overlay, absolute */
        char *backing; /* in the mount, absolute */
        uint64_t size; /* bytes */
        bool settled;  /* all of it is in the overlay, and on stable storage */
} RecoveryDisk;

typedef struct RecoveryNote {
        char *name, *uuid; /* of the VM that is made */
        char *uri;         /* of its hypervisor */
        char *repository, *vm, *point;
        bool started, paused;
        RecoveryDisk *disks;
        size_t disk_count;
        Strings made; /* files beside the disks */
} RecoveryNote;

void recovery_note_clear(RecoveryNote *note);
/* Replaces what was there. directory_fd: NAME.recovery. */
int recovery_note_write(int directory_fd, const RecoveryNote *note, Reason *reterr);
/* -ENOENT; -EBADMSG. */
int recovery_note_read(int directory_fd, RecoveryNote *ret, Reason *reterr);

/* The lock: -EBUSY where another process works on it. */
int recovery_note_lock(int directory_fd, int *ret_fd, Reason *reterr);
