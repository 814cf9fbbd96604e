/* core/machine/point-mount.h - a mount of the repository that a VM reads its disks from.
 *
 * It is a process of its own: nothing that happens to the one that asked for it takes it away, and while the VM has a disk
 * of it open no signal does (the mount option hold). Threads: any. */
#pragma once

#include "machine/hypervisor.h"

typedef struct PointMountWish {
        const char *program;    /* virtbackupfs itself */
        const char *repository; /* absolute */
        const char *mountpoint; /* absolute, there, empty */
        const char *held_by;    /* "the recovery of vm1": what it says when it is asked to end */
        const Hypervisor *hypervisor; /* whose QEMU must be able to read it */
} PointMountWish;

/* Mounted when it returns. */
int point_mount_start(const PointMountWish *wish, const atomic_bool *cancel, Reason *reterr);

typedef enum PointMountState {
        POINT_MOUNT_NONE,
        POINT_MOUNT_LIVES,
        POINT_MOUNT_DEAD, /* its process is gone */
} PointMountState;
PointMountState point_mount_state(const char *mountpoint);

/* 0 also where nothing is mounted. Somebody who looks around in it is waited for, but not for long. */
int point_mount_end(const char *mountpoint, Reason *reterr);
