/* core/repository/repository.h - the directory that holds all of it.
 *
 *     REPO/
 *     ├── repository.json            sealed JSON: format, version, features, uuid; locked by what adds and removes VMs
 *     ├── serials/7                  the VM serials ever given out; the file's text is the VM's name
 *     └── vms/NAME/
 *         ├── vm.json                sealed JSON: the registration (vm.h)
 *         ├── lock                   held while a capture runs (capture-lock.h)
 *         ├── readers                held while points are restored or recovered, or deleted (points-lock.h)
 *         ├── state.json             sealed JSON: how the capture goes (capture-state.h)
 *         ├── points/POINT.json      sealed JSON: one manifest a restore point (manifest.h); creating it is the commit
 *         └── data/CAPTURE/          what one capture wrote: DISK.layer, domain.xml, …; a leftover without a manifest
 *
 * Every JSON file but `state.json` and `vm.json` is immutable once made. Who reads takes no lock, but for
 * the one that keeps points from being deleted.
 * Threads: a Repository may be used by any number of threads. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "formats/layer.h"
#include "repository/identity.h"
#include "util/cleanup.h"
#include "util/reason.h"
#include "util/strings.h"

#define REPOSITORY_VERSION 1
#define REPOSITORY_CACHE_DEFAULT (64u << 20) /* bytes, for blocks, index pages and flattened regions together */

typedef struct Repository Repository;

/* Makes an empty repository; the directory may exist if it is empty. -ENOTEMPTY, -EEXIST (a repository already). */
int repository_init(const char *path, Reason *reterr);

/* A directory that is no repository of ours but holds backups of other tools is opened too: what is in it is shown as VMs
 * and points, and nothing is written. -ENOENT: not there, -ENOTDIR, -EINVAL: no repository, nor anything else that is
 * known, -ENOTSUP: made by a newer version, -EBADMSG: damaged. */
int repository_open(const char *path, size_t cache_bytes, Repository **ret, Reason *reterr);
Repository *repository_free(Repository *repository); /* always NULL; no VM, chain or layer of it may be left */
DEFINE_CLEANUP(Repository, repository_free)

const char *repository_uuid(const Repository *repository); /* text, 36 characters; "" where it is not native */
const char *repository_path(const Repository *repository); /* absolute */
int repository_fd(const Repository *repository);
bool repository_is_native(const Repository *repository); /* false: a directory of other tools; nothing is written there */
LayerStore *repository_layers(const Repository *repository);

/* The names of all VMs, sorted. The caller frees them with strings_free(). */
int repository_list_vms(Repository *repository, Strings *ret, Reason *reterr);

/* Tells whether the VM is registered as it was, without reading it. */
int repository_identify_vm(Repository *repository, const char *name, Identity *ret);
/* The name of the VM that has this serial, or had it when it was damaged. The caller frees *ret. -ESTALE. */
int repository_vm_of_serial(Repository *repository, uint32_t serial, char **ret);
/* When VMs came or went. */
int repository_changed(Repository *repository, struct timespec *ret);

/* An array of {"path", "reason"}: what lies in a directory of other tools, also in those that VMs are registered with, and
 * cannot be used. */
int repository_unrecognised(Repository *repository, json_t **ret, Reason *reterr);

/* For what adds and removes VMs: waits until no other process does so. Closing the descriptor unlocks. -EROFS where the
 * repository cannot be written to. */
int repository_lock(Repository *repository, int *ret_fd, Reason *reterr);
