/* core/chain/allocation.h - how much of a disk is no hole, where its manifest does not say so.
 *
 * Other tools do not record it: it is found by walking the disk's map, when somebody asks, and remembered. Nothing is
 * unpacked for it, nor is waited for what is being unpacked. Threads: any. */
#pragma once

#include "repository/manifest.h"

/* In bytes. What cannot be read counts as data. */
int allocation_find(Vm *vm, const Manifest *manifest, const ManifestDisk *disk, uint64_t *ret, Reason *reterr);
/* Of all disks of the point, so that describing it tells them. What fails stays unknown. */
void allocation_find_all(Vm *vm, const Manifest *manifest);

/* Whether nothing but an upper bound is known: what the layers hold together, as the tool tells. */
bool allocation_is_bound(const ManifestDisk *disk);
/* That, below the disk's size: a file that takes as much as it is long is taken for one without holes. */
uint64_t allocation_bound(const ManifestDisk *disk);
