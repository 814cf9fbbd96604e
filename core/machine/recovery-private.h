/* core/machine/recovery-private.h - what the files of a recovery share.
 *
 * recovery.c          which of these is to be done
 * recovery-build.c    from nothing to a VM that can be started, and back
 * recovery-stream.c   from a VM that runs to one that needs nothing of us */
#pragma once

#include "machine/origin.h"
#include "machine/recovery-note.h"
#include "machine/recovery.h"

typedef struct Recovery {
        const RecoveryWish *wish;
        Origin origin;
        Hypervisor *hypervisor;
        RecoveryNote note;
        char *directory;  /* that gets the disks; absolute */
        int directory_fd;
        char *own_name;   /* "vm1.recovery", in it */
        char *mountpoint; /* absolute */
        int hold_fd;      /* of the mount's root, which keeps it from being unmounted; -1: it is not held */
        int own_fd;       /* of own_name; -1: there is none */
        int lock_fd;
        int points_fd;    /* of the lock that keeps the point; -1: none is to be had */
} Recovery;

void recovery_warn(const Recovery *recovery, const char *line);

/* Mounts, for this recovery, and holds the mount. */
int recovery_mount(Recovery *recovery, Reason *reterr);
/* Has umount(8) say that it is busy with this process, also where QEMU's own mount namespace is not seen by the host's. */
void recovery_hold_mount(Recovery *recovery);

/* Makes all but the start; what it has made when it fails is the caller's to take away. */
int recovery_build(Recovery *recovery, Reason *reterr);
/* Takes away all that the note names, the VM first: a VM that cannot be ended keeps the rest. */
int recovery_take_away(Recovery *recovery, Reason *reterr);

/* Streams what is not streamed yet, of a VM that runs, and sees to it that it is on stable storage. */
int recovery_stream(Recovery *recovery, Reason *reterr);
/* Ends the mount and removes what only the recovery needed. */
int recovery_finish(Recovery *recovery, Reason *reterr);
