/* core/repository/foreign/foreign.h - directories of other tools as repositories, and as the places of single VMs' points.
 *
 * A VM of a repository of ours is registered with a directory as its source "dir:///PATH?vm=NAME": PATH is absolute, NAME
 * that of the VM in it, which may be left out where it is the only one.
 * Threads: any. */
#pragma once

#include "repository/backend.h"

/* Whether the source of a registration is such a directory. */
bool foreign_claims(const char *source);

/* Opens a directory that is no repository of ours. -EINVAL: nothing in it is known. */
int foreign_repository_load(Repository *repository, const char *path, Reason *reterr);

/* The points of a VM that is registered so are those in the directory, which is not looked into yet. */
int foreign_vm_attach(Vm *vm, Reason *reterr);
