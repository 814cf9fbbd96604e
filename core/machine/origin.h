/* core/machine/origin.h - the point that a VM is made of, and what it knows of the VM that it was taken from. */
#pragma once

#include <uuid/uuid.h>

#include "machine/hypervisor.h"
#include "repository/manifest.h"

typedef struct Origin {
        Vm *vm;              /* borrowed */
        Manifest *manifest;
        char *definition;    /* as it was kept */
        char *name;          /* of the VM, as its hypervisor had it */
        char uuid[UUID_STR_LEN];
} Origin;
void origin_clear(Origin *origin);

/* -ENODATA where the point has no definition; as point_check() says where it is not complete. */
int origin_read(Vm *vm, const char *point, Origin *ret, Reason *reterr);

/* The hypervisor at the URI; NULL: where the VM was, if that is on this machine, else as virsh chooses. */
int origin_open_hypervisor(const Origin *origin, const char *uri, Hypervisor **ret, Reason *reterr);

/* Says the line of the VM that is made, whose name goes before it. */
void origin_say(void (*say)(void *context, const char *line), void *context, const char *name, const char *line);

/* That the VM can have this name: libvirt refuses others in less clear words. -EINVAL. */
int origin_check_name(const char *name, Reason *reterr);
