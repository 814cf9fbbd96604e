#include "chain/allocation.h"

#include <errno.h>

#include "chain/chain.h"

int allocation_find(Vm *vm, const Manifest *manifest, const ManifestDisk *disk, uint64_t *ret, Reason *reterr) {
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        uint64_t allocated = manifest_disk_allocated(disk);
        ChainExtent extent;
        int rc;

        if (allocated != ALLOCATED_UNKNOWN) {
                *ret = allocated;
                return 0;
        }
        rc = chain_open(vm, manifest->name, disk->name, &chain, reterr);
        if (rc < 0)
                return rc;
        /* The point may have become another one meanwhile, whose manifest this is not. */
        if (chain_size(chain) != disk->size)
                return fail(reterr, -ESTALE, "%s/%s has changed", vm_name(vm), manifest->name);
        allocated = 0;
        for (uint64_t offset = 0; offset < chain_size(chain); offset = extent.start + extent.length) {
                rc = chain_next_extent(chain, offset, &extent, reterr);
                if (rc < 0)
                        return rc;
                if (extent.state != EXTENT_ZERO)
                        allocated += extent.length;
        }
        if (!chain_damage(chain)) /* which may be mended */
                manifest_disk_set_allocated(disk, allocated);
        *ret = allocated;
        return 0;
}

void allocation_find_all(Vm *vm, const Manifest *manifest) {
        uint64_t allocated;

        for (size_t i = 0; i < manifest->disk_count; i++)
                (void) allocation_find(vm, manifest, &manifest->disks[i], &allocated, NULL);
}
