/* core/repository/backend.h - what repositories and VMs are made of: two ways, one of our own files and one of what formats
 * find in a directory of other tools. All else uses repository.h and vm.h, which call these.
 *
 * Threads: every function from any, at once. */
#pragma once

#include <jansson.h>
#include <pthread.h>
#include "repository/identity.h"
#include "repository/manifest.h"
#include "repository/registration.h"
#include "repository/repository.h"
#include "repository/vm.h"

typedef struct ForeignRoot ForeignRoot;

typedef struct RepositoryOps {
        int (*list_vms)(Repository *repository, Strings *ret, Reason *reterr); /* in any order */
        /* The name is valid. -ENOENT. vm: the door's, with the name in it. */
        int (*open_vm)(Repository *repository, Vm *vm, Reason *reterr);
        int (*identify_vm)(Repository *repository, const char *name, Identity *ret);
        int (*vm_of_serial)(Repository *repository, uint32_t serial, char **ret); /* -ESTALE */
        int (*changed)(Repository *repository, struct timespec *ret);
        int (*unrecognised)(Repository *repository, json_t *list, Reason *reterr);
} RepositoryOps;

struct Repository {
        const RepositoryOps *ops;
        int fd;
        char *path;
        char uuid[UUID_STR_LEN]; /* "": it has none */
        LayerStore *layers;
        ForeignRoot *foreign;    /* all that were opened; see foreign/root.h. The first: of this directory itself */
        pthread_mutex_t lock;    /* of that list */
};

typedef struct VmOps {
        int (*list_points)(Vm *vm, Strings *ret, Reason *reterr); /* sorted */
        int (*newest_point)(Vm *vm, char ret[static POINT_NAME_MAX], Reason *reterr);
        int (*identify_point)(Vm *vm, const char *name, Identity *ret); /* -ENOENT */
        int (*point_of_serial)(Vm *vm, uint32_t serial, char ret[static POINT_NAME_MAX]); /* -ESTALE */
        int (*read_manifest)(Vm *vm, const char *name, Manifest **ret, Reason *reterr); /* the name is valid */
        int (*changed)(Vm *vm, struct timespec *ret);
        LayerStore *(*layers)(const Vm *vm);
} VmOps;

struct Vm {
        const VmOps *ops;
        Repository *repository;
        char name[VM_NAME_MAX + 1];
        Registration registration; /* empty but for the serial where damaged */
        char *damage;
        int fd;                    /* -1: it has no directory in a repository of ours */
        ForeignRoot *root;         /* where its points lie; or NULL */
        char *inside;              /* its name there; NULL: that of the only one */
};
