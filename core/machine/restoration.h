/* core/machine/restoration.h - a VM made of a point: its disks restored, its definition made to fit, and taken by libvirt.
 *
 * DIRECTORY/NAME.restore/ gets the disks, and goes once they have their final names, DIRECTORY/NAME-DISK.FORMAT. Whatever
 * fails takes away all that was made; what was interrupted or killed while disks were restored is gone on with. */
#pragma once

#include <stdbool.h>

#include "repository/manifest.h"
#include "restore/restore.h"

typedef struct RestorationWish {
        Vm *vm;
        const char *point;
        const char *uri;    /* of the hypervisor; NULL: the VM's own where it is on this machine, else virsh's choice */
        const char *place;  /* as place_resolve() takes it */
        const char *name;   /* NULL: as it was */
        bool keep_identity; /* UUID and MAC addresses */
        bool start;
        RestoreOptions options; /* format: NULL: qcow2, which can tell what changes for the next backups */
        void (*warn)(void *context, const char *line); /* with the context of the options */
} RestorationWish;

/* *ret_name: of the VM, which the caller frees. *ret_skipped: as restore_point() has it. -EEXIST: the name, the UUID or a
 * file is taken. */
int restoration_run(const RestorationWish *wish, char **ret_name, uint64_t *ret_skipped, Reason *reterr);
