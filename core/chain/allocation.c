#include "chain/allocation.h"

#include <errno.h>

#include "chain/chain-view.h"
#include "util/bytes.h"
#include "util/patience.h"

#define WAIT 2000     /* milliseconds, where an archive is just being looked through */
#define HOLE_MIN 4096 /* bytes: a block of most file systems */

static int walk(Vm *vm, const Manifest *manifest, const ManifestDisk *disk, uint64_t *ret, Reason *reterr) {
        CLEANUP(chain_view_freep) ChainView *view = NULL;
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        uint64_t done, total;
        bool damaged;
        int rc;

        if (manifest_disk_progress(vm, manifest, disk, &done, &total))
                return fail(reterr, -EBUSY, "it is being unpacked");
        rc = chain_open(vm, manifest->name, disk->name, &chain, reterr);
        if (rc < 0)
                return rc;
        /* The point may have become another one meanwhile, whose manifest this is not. */
        if (chain_size(chain) != disk->size)
                return fail(reterr, -ESTALE, "%s/%s has changed", vm_name(vm), manifest->name);
        damaged = chain_damage(chain);
        rc = chain_view_whole(chain, &view, reterr);
        if (rc < 0)
                return rc;
        chain = NULL; /* the view's */
        rc = chain_view_allocated(view, ret, reterr);
        if (rc == 0 && !damaged) /* which may be mended */
                manifest_disk_set_allocated(disk, *ret);
        return rc;
}

int allocation_find(Vm *vm, const Manifest *manifest, const ManifestDisk *disk, uint64_t *ret, Reason *reterr) {
        uint64_t allocated = manifest_disk_allocated(disk);
        PatienceLimit limit;
        int rc;

        if (allocated != ALLOCATED_UNKNOWN) {
                *ret = allocated;
                return 0;
        }
        patience_limit(&limit, WAIT);
        limit.patience.light = true;
        rc = walk(vm, manifest, disk, ret, reterr);
        patience_unlimit(&limit);
        return rc;
}

void allocation_find_all(Vm *vm, const Manifest *manifest) {
        uint64_t allocated;

        for (size_t i = 0; i < manifest->disk_count; i++)
                (void) allocation_find(vm, manifest, &manifest->disks[i], &allocated, NULL);
}

bool allocation_is_bound(const ManifestDisk *disk) {
        return disk->data > 0 && manifest_disk_allocated(disk) == ALLOCATED_UNKNOWN;
}

uint64_t allocation_bound(const ManifestDisk *disk) {
        return min_u64(disk->data, disk->size > HOLE_MIN ? disk->size - HOLE_MIN : disk->size);
}
