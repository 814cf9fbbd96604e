/* core/machine/trial.h - proves that a point boots: a VM under another name, without network, on throw-away overlays, which
 * ends with the test.
 *
 * libvirt ends the VM with the connection of whoever tests, so that it never outlives the process. What a killed one has
 * left besides (a directory, a mount) the next one in the same place takes away. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "repository/manifest.h"

#define TRIAL_TIMEOUT_DEFAULT 300 /* seconds */

typedef struct TrialWish {
        Vm *vm;
        const char *point;
        const char *program;  /* virtbackupfs itself, which mounts */
        const char *uri;      /* of the hypervisor; NULL: the VM's own where it is on this machine, else virsh's choice */
        const char *place;    /* the directory for what the guest writes; NULL: /var/tmp */
        const char *until;    /* what its serial console has to say; NULL: its guest agent has to answer */
        unsigned timeout;     /* seconds */
        const atomic_bool *cancel;
        void (*tell)(void *context, const char *line);
        void (*warn)(void *context, const char *line);
        void *context;
} TrialWish;

typedef struct TrialResult {
        bool booted;
        char words[512]; /* what was seen, or what it was waited for in vain */
} TrialResult;

/* 0 whether it booted or not; an error where it could not be tried. */
int trial_run(const TrialWish *wish, TrialResult *ret, Reason *reterr);
