/* core/machine/place.h - the directory that gets the disks of a VM. */
#pragma once

#include <stdint.h>

#include "machine/hypervisor.h"

/* word: a directory (with a slash in it) or a storage pool; NULL: where this hypervisor's images are by default, which is
 * made where it is not there. The path is absolute; the caller frees *ret. */
int place_resolve(Hypervisor *hypervisor, const char *word, char **ret, Reason *reterr);

/* -ENOSPC where the directory has not that much room, in words. */
int place_check_room(const char *directory, uint64_t bytes, Reason *reterr);
