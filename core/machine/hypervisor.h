/* core/machine/hypervisor.h - the libvirt that gets VMs which are made of points.
 *
 * The one place here that speaks to libvirt. It is this machine's own: files that we write are those that its VMs open.
 * VMs are named by their UUID once they are there. Threads: belongs to one. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/cleanup.h"
#include "util/reason.h"

typedef struct Hypervisor Hypervisor;

/* uri: NULL: as virsh chooses it. -EREMOTE: it is another machine's. */
int hypervisor_open(const char *uri, Hypervisor **ret, Reason *reterr);
Hypervisor *hypervisor_free(Hypervisor *hypervisor); /* always NULL */
DEFINE_CLEANUP(Hypervisor, hypervisor_free)

const char *hypervisor_uri(const Hypervisor *hypervisor);       /* for libvirt */
const char *hypervisor_shown(const Hypervisor *hypervisor);     /* for people */
bool hypervisor_is_session(const Hypervisor *hypervisor);       /* its VMs run as the user that asks */
bool hypervisor_has_kvm(const Hypervisor *hypervisor);
/* Whose QEMU is: in a session, this process's. */
uid_t hypervisor_uid(const Hypervisor *hypervisor);
gid_t hypervisor_gid(const Hypervisor *hypervisor);

/* -EEXIST where there is a VM of that name, or of that UUID (which may be NULL). */
int hypervisor_check_free(Hypervisor *hypervisor, const char *name, const char *uuid, Reason *reterr);

/* The directory of a storage pool, which is started where it is not active. -ENOTSUP: it is no directory. The caller frees
 * *ret. */
int hypervisor_pool_directory(Hypervisor *hypervisor, const char *pool, char **ret, Reason *reterr);
/* Has it see new files. Failing is no harm. */
void hypervisor_refresh_pool(Hypervisor *hypervisor, const char *pool);

/* As it will be when it is started next, secrets too. The caller frees *ret. */
int hypervisor_definition(Hypervisor *hypervisor, const char *uuid, char **ret, Reason *reterr);
int hypervisor_define(Hypervisor *hypervisor, const char *definition, Reason *reterr);
int hypervisor_start(Hypervisor *hypervisor, const char *uuid, Reason *reterr);
/* Has one go on that was stopped; 0 also where it runs. */
int hypervisor_resume(Hypervisor *hypervisor, const char *uuid, Reason *reterr);
/* Has QEMU write down all that it keeps in memory of the images of a VM that runs, which stands still for that moment.
 * -EAGAIN: it is paused; -EHOSTDOWN: it is off. */
int hypervisor_settle(Hypervisor *hypervisor, const char *uuid, Reason *reterr);
/* Starts a VM that is not defined and ends with this connection, whatever happens to this process. */
int hypervisor_run(Hypervisor *hypervisor, const char *definition, Reason *reterr);
/* Pulls the plug; 0 also where it is off or unknown. */
int hypervisor_destroy(Hypervisor *hypervisor, const char *uuid, Reason *reterr);
/* Its firmware's files stay. 0 also where it is unknown. */
int hypervisor_undefine(Hypervisor *hypervisor, const char *uuid, Reason *reterr);

typedef enum MachineState {
        MACHINE_GONE,    /* libvirt does not know it */
        MACHINE_OFF,
        MACHINE_RUNS,    /* or is paused by somebody */
        MACHINE_STOPPED, /* by a write that failed: no space, or an error */
} MachineState;
int hypervisor_state(Hypervisor *hypervisor, const char *uuid, MachineState *ret, Reason *reterr);

/* Copies what is below the disk's image into it, while the VM runs. rate: bytes/s; 0: no limit. */
int hypervisor_pull(Hypervisor *hypervisor, const char *uuid, const char *disk, uint64_t rate, Reason *reterr);
/* 1: it goes on, and how far; 0: there is no such job. */
int hypervisor_pull_progress(Hypervisor *hypervisor, const char *uuid, const char *disk, uint64_t *ret_done,
                             uint64_t *ret_total, Reason *reterr);
/* Whether the disk's image needs another below it, as the running VM has it or will when it is started next. */
int hypervisor_disk_has_backing(Hypervisor *hypervisor, const char *uuid, const char *disk, bool *ret, Reason *reterr);

/* Whether the VM of that UUID is there and has this image as that disk. */
int hypervisor_has_image(Hypervisor *hypervisor, const char *uuid, const char *disk, const char *path, bool *ret,
                         Reason *reterr);

/* 0 where the guest agent answers. -ETIMEDOUT and others where not. */
int hypervisor_ask_agent(Hypervisor *hypervisor, const char *uuid, unsigned patience_ms, const atomic_bool *cancel,
                         Reason *reterr);
