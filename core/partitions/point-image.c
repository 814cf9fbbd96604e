#include "partitions/point-image.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "partitions/partitions.h"

void point_image_close(ChainView *view) {
        chain_unref(view->chain);
        *view = (ChainView) { 0 };
}

/* Looks for the partition on one disk. -ENOENT where it has none of that name. */
static int open_partition(Vm *vm, const char *point, const char *disk, const char *name, ChainView *ret, Reason *reterr) {
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        CLEANUP(partition_table_unrefp) PartitionTable *table = NULL;
        char candidate[NAME_MAX + 1];
        int rc;

        rc = chain_open(vm, point, disk, &chain, reterr);
        if (rc >= 0)
                rc = partitions_find(chain, &table, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < table->count; i++) {
                const Partition *partition = &table->partitions[i];

                partition_name(disk, partition, candidate, sizeof candidate);
                if (strcmp(candidate, name) != 0)
                        continue;
                if (!partition->readable)
                        return fail(reterr, -EINVAL, "%s/%s/%s cannot be read: %s", vm_name(vm), point, name,
                                    partition->trouble ?: "it holds the logical partitions, and nothing else");
                *ret = (ChainView) { STEAL_PTR(chain), partition->start, partition->size };
                return 0;
        }
        return fail(reterr, -ENOENT, "%s/%s has neither a disk nor a partition %s%s%s", vm_name(vm), point, name,
                    table->trouble ? ": " : "", table->trouble ?: "");
}

int point_image_open(Vm *vm, const char *point, const char *name, ChainView *ret, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        Chain *chain;
        int rc = manifest_read(vm, point, &manifest, reterr);

        if (rc < 0)
                return rc;
        if (manifest_find_disk(manifest, name)) {
                rc = chain_open(vm, point, name, &chain, reterr);
                if (rc >= 0)
                        *ret = chain_view_whole(chain);
                return rc;
        }
        rc = fail(reterr, -ENOENT, "%s/%s has neither a disk nor a partition %s", vm_name(vm), point, name);
        for (size_t i = 0; rc == -ENOENT && i < manifest->disk_count; i++)
                if (strncmp(name, manifest->disks[i].name, strlen(manifest->disks[i].name)) == 0)
                        rc = open_partition(vm, point, manifest->disks[i].name, name, ret, reterr);
        return rc;
}
