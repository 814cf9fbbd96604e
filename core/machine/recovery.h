/* core/machine/recovery.h - instant recovery: a VM that runs from a point at once, while its disks become its own.
 *
 * Each disk is an overlay at its final place, above the disk as the mounted repository shows it. What the guest writes goes
 * to the overlay alone, and QEMU streams what is below into it (a block pull). A block copy would have each guest write go
 * to two files until it is done, and a QEMU that is killed before that would leave neither of them whole. So whatever ends
 * when it should not, a VM that was started loses nothing: a recovery that was cut off, by a reboot too, is gone on with.
 * Until the VM is to be started every failure takes away all that was made. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "repository/manifest.h"
#include "restore/restore.h"

typedef struct RecoveryWish {
        Vm *vm;
        const char *point;
        bool newest;            /* the point was not named: one that was begun from another is gone on with too */
        const char *program;    /* virtbackupfs itself, which mounts */
        const char *uri;        /* of the hypervisor; NULL: the VM's own where it is on this machine, else virsh's choice */
        const char *place;      /* as place_resolve() takes it */
        const char *name;       /* NULL: as it was */
        bool keep_identity;     /* UUID and MAC addresses */
        bool unplugged;         /* network interfaces lead nowhere */
        uint64_t rate;          /* bytes/s for streaming; 0: no limit */
        const atomic_bool *cancel;
        void (*tell)(void *context, const char *line); /* what was done */
        void (*warn)(void *context, const char *line);
        void (*progress)(void *context, const RestoreProgress *disks, size_t count); /* a few times a second */
        void *context;
} RecoveryWish;

/* Goes on with one that was cut off. *ret_name: of the VM, which the caller frees. -EEXIST: the name, the UUID or a file is
 * taken; -EBUSY: another process is at it; -ECANCELED: the VM runs, and the same call goes on. */
int recovery_run(const RecoveryWish *wish, char **ret_name, Reason *reterr);

/* Ends the VM of a recovery that is not done, and takes away all that was made. -ENOENT: there is none. */
int recovery_abort(const RecoveryWish *wish, char **ret_name, Reason *reterr);
