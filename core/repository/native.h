/* core/repository/native.h - repositories and VMs of our own files; see repository.h for these. */
#pragma once

#include "repository/backend.h"

#define REPOSITORY_FILE "repository.json"
#define REPOSITORY_KIND "virtbackupfs repository"

extern const RepositoryOps native_repository_ops;
extern const VmOps native_vm_ops;

/* Fills in ops and uuid. -ENOENT: the directory is no repository of ours. */
int native_repository_load(Repository *repository, const char *path, Reason *reterr);
