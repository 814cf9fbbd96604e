#include "partitions/point-image.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "partitions/volumes.h"
#include "util/bytes.h"

int point_image_open_disk(Vm *vm, const char *point, const char *disk, ChainView **ret, Reason *reterr) {
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        int rc = chain_open(vm, point, disk, &chain, reterr);

        if (rc >= 0)
                rc = chain_view_whole(chain, ret, reterr);
        if (rc >= 0)
                chain = NULL;
        return rc;
}

int point_image_open_partition(Vm *vm, const char *point, const char *disk, const Partition *partition, ChainView **ret,
                               Reason *reterr) {
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        int rc;

        if (partition->volume)
                return volume_open(vm, point, partition, ret, reterr);
        rc = chain_open(vm, point, disk, &chain, reterr);
        if (rc >= 0)
                rc = chain_view_range(chain, partition->start, partition->size, ret, reterr);
        if (rc >= 0)
                chain = NULL;
        return rc;
}

/* Bytes in [start, end) of the disk that are no hole. */
static int count_allocated(Vm *vm, const char *point, const char *disk, uint64_t start, uint64_t end, uint64_t *ret,
                           Reason *reterr) {
        CLEANUP(chain_view_freep) ChainView *view = NULL;
        Partition range = { .start = start, .size = end - start };
        int rc = point_image_open_partition(vm, point, disk, &range, &view, reterr);

        return rc < 0 ? rc : chain_view_allocated(view, ret, reterr);
}

/* Of the partition, or of what is around it: whichever is shorter. */
int point_image_allocated(Vm *vm, const char *point, const ManifestDisk *disk, const Partition *partition,
                          uint64_t disk_allocated, uint64_t *ret, Reason *reterr) {
        CLEANUP(chain_view_freep) ChainView *view = NULL;
        uint64_t end = partition->start + partition->size, before, behind;
        int rc;

        if (partition->pieces || partition->size <= disk->size / 2) {
                rc = point_image_open_partition(vm, point, disk->name, partition, &view, reterr);
                return rc < 0 ? rc : chain_view_allocated(view, ret, reterr);
        }
        rc = count_allocated(vm, point, disk->name, 0, partition->start, &before, reterr);
        if (rc >= 0)
                rc = count_allocated(vm, point, disk->name, end, disk->size, &behind, reterr);
        if (rc < 0)
                return rc;
        *ret = min_u64(disk_allocated - min_u64(disk_allocated, before + behind), partition->size);
        return 0;
}

/* Looks for the partition on one disk. -ENOENT where it has none of that name. */
static int open_partition(Vm *vm, const char *point, const char *disk, const char *name, ChainView **ret, Reason *reterr) {
        CLEANUP(partition_table_unrefp) PartitionTable *table = NULL;
        char candidate[NAME_MAX + 1];
        int rc = partitions_find(vm, point, disk, &table, reterr);

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
                return point_image_open_partition(vm, point, disk, partition, ret, reterr);
        }
        return fail(reterr, -ENOENT, "%s/%s has neither a disk nor a partition %s%s%s", vm_name(vm), point, name,
                    table->trouble ? ": " : "", table->trouble ?: "");
}

int point_image_open(Vm *vm, const char *point, const char *name, ChainView **ret, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        int rc = manifest_read(vm, point, &manifest, reterr);

        if (rc < 0)
                return rc;
        if (manifest_find_disk(manifest, name))
                return point_image_open_disk(vm, point, name, ret, reterr);
        rc = fail(reterr, -ENOENT, "%s/%s has neither a disk nor a partition %s", vm_name(vm), point, name);
        for (size_t i = 0; rc == -ENOENT && i < manifest->disk_count; i++)
                if (strncmp(name, manifest->disks[i].name, strlen(manifest->disks[i].name)) == 0)
                        rc = open_partition(vm, point, manifest->disks[i].name, name, ret, reterr);
        return rc;
}
