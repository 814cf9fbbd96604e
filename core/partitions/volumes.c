#include "partitions/volumes.h"

#include <errno.h>
#include <string.h>

#include "partitions/lvm.h"
#include "repository/manifest.h"

#define KIND_MEMBERS 2             /* of what is made of a chain; see partitions.c */
#define MEMBER_COST (32u << 10)    /* bytes: of what a physical volume tells */

/* The physical volumes of a disk, in the repository's cache. */
typedef struct Found {
        LvmMembers members;
        bool passing; /* trouble that may be over next time */
} Found;

static void found_free(void *value) {
        Found *found = value;

        lvm_members_clear(&found->members);
        free(found);
}

static void found_freep(Found **found) {
        if (*found)
                found_free(*found);
}

/* ---- a disk ---- */

static int gather_one(const DiskBytes *disk, size_t disk_number, const Filesystem *filesystem, unsigned number,
                      uint64_t start, uint64_t size, PartitionTable *table, LvmMembers *members, Reason *reterr) {
        Reason reason = REASON_INIT;
        int rc;

        if (!filesystem->type || strcmp(filesystem->type, "LVM2_member") != 0)
                return 0;
        rc = lvm_members_add(members, disk, disk_number, number, start, size, &reason);
        if (rc == -ENOMEM || (rc < 0 && !partition_set_trouble(&table->trouble, reason.text)))
                return fail_oom(reterr);
        return 0;
}

int volumes_gather(const DiskBytes *disk, size_t disk_number, PartitionTable *table, LvmMembers *members, Reason *reterr) {
        int rc = gather_one(disk, disk_number, &table->filesystem, 0, 0, disk->size, table, members, reterr);

        for (size_t i = 0; rc >= 0 && i < table->count; i++) {
                const Partition *partition = &table->partitions[i];

                if (partition->readable)
                        rc = gather_one(disk, disk_number, &partition->filesystem, partition->number, partition->start,
                                        partition->size, table, members, reterr);
        }
        return rc;
}

/* ---- the others of the point ---- */

static int load_members(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        CLEANUP(partition_table_unrefp) PartitionTable *table = NULL;
        CLEANUP(found_freep) Found *found = calloc(1, sizeof *found);
        DiskBytes disk = disk_bytes_of_chain(context);
        int rc;

        if (!found)
                return fail_oom(reterr);
        rc = partition_table_read(&disk, &table, reterr);
        if (rc >= 0)
                rc = volumes_gather(&disk, 0, table, &found->members, reterr);
        if (rc < 0)
                return rc;
        found->passing = table->passing;
        *ret_cost = sizeof *found + found->members.count * MEMBER_COST;
        *ret = STEAL_PTR(found);
        return 0;
}

/* *ret_passing: they could not be looked for, and it may be over next time. */
static int gather_from(Vm *vm, const char *point, const char *disk, size_t disk_number, LvmMembers *members,
                       bool *ret_passing) {
        static const CacheLoader loader = { load_members, found_free };
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        const Found *found;

        if (chain_open(vm, point, disk, &chain, NULL) < 0 ||
            chain_get_made(chain, KIND_MEMBERS, &loader, chain, &entry, NULL) < 0) {
                *ret_passing = true;
                return 0;
        }
        found = cache_value(entry);
        if (found->passing) {
                *ret_passing = true;
                cache_drop(entry);
        }
        return lvm_members_join(members, &found->members, disk_number);
}

/* ---- volumes ---- */

static int identify(Vm *vm, const char *point, Partition *volume, Reason *reterr) {
        CLEANUP(chain_view_freep) ChainView *view = NULL;
        int rc = volume_open(vm, point, volume, &view, reterr);
        DiskBytes bytes;

        if (rc < 0)
                return rc;
        bytes = disk_bytes_of_view(view);
        return filesystem_identify(&bytes, 0, bytes.size, &volume->filesystem, &volume->trouble, reterr);
}

/* Which of the volume's own disks that one is. */
static int number_disk(Partition *volume, const char *name, size_t *ret) {
        for (size_t i = 0; i < volume->disks.count; i++)
                if (strcmp(volume->disks.items[i], name) == 0) {
                        *ret = i;
                        return 0;
                }
        *ret = volume->disks.count;
        return strings_add(&volume->disks, name);
}

/* Takes the pieces over; the own disk is the first that the volume counts. */
static int take_pieces(const Manifest *manifest, const char *disk, LvmVolume *from, Partition *volume) {
        int rc = strings_add(&volume->disks, disk);

        for (size_t i = 0; rc >= 0 && i < from->piece_count; i++)
                for (size_t place = 0; rc >= 0 && place < from->pieces[i].place_count; place++) {
                        size_t *number = &from->pieces[i].places[place].disk;

                        rc = number_disk(volume, manifest->disks[*number].name, number);
                }
        if (rc < 0)
                return rc;
        volume->size = from->size;
        volume->start = from->pieces->places->start;
        volume->readable = true;
        if (from->piece_count == 1 && from->pieces->place_count == 1)
                return 0;
        volume->piece_count = from->piece_count;
        volume->pieces = STEAL_PTR(from->pieces);
        from->piece_count = 0;
        return 0;
}

static int add_volume(Vm *vm, const Manifest *manifest, const char *disk, unsigned number, LvmVolume *from,
                      PartitionTable *table, Reason *reterr) {
        Partition *grown = reallocarray(table->partitions, table->count + 1, sizeof *grown), *volume;
        Reason reason = REASON_INIT;
        int rc = 0;

        if (!grown)
                return fail_oom(reterr);
        table->partitions = grown;
        volume = &grown[table->count++];
        *volume = (Partition) { .number = number, .volume = STEAL_PTR(from->name), .scheme = strdup("lvm") };
        volume->trouble = STEAL_PTR(from->trouble);
        if (!volume->scheme || (!volume->trouble && take_pieces(manifest, disk, from, volume) < 0))
                return fail_oom(reterr);
        if (volume->readable)
                rc = identify(vm, manifest->name, volume, &reason);
        if (rc == -ENOMEM || (rc < 0 && !partition_set_trouble(&volume->trouble, reason.text)))
                return fail_oom(reterr);
        if (rc < 0)
                volume->readable = false;
        return 0;
}

static int add_volumes(Vm *vm, const Manifest *manifest, const char *disk, const LvmMembers *members, size_t own,
                       PartitionTable *table, Reason *reterr) {
        CLEANUP(lvm_volumes_clear) LvmVolumes volumes = { 0 };
        Reason reason = REASON_INIT;
        int rc = lvm_volumes_find(members, own, &volumes, &reason);

        if (rc == -ENOMEM || (rc < 0 && !partition_set_trouble(&table->trouble, reason.text)))
                return fail_oom(reterr);
        for (size_t i = 0; rc >= 0 && i < volumes.count && table->count < PARTITIONS_MAX; i++)
                if (add_volume(vm, manifest, disk, members->items[own].number, &volumes.items[i], table, reterr) < 0)
                        return -ENOMEM;
        return 0;
}

int volumes_add(Vm *vm, const char *point, const char *disk, Chain *chain, PartitionTable *table, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        CLEANUP(lvm_members_clear) LvmMembers members = { 0 };
        DiskBytes bytes = disk_bytes_of_chain(chain);
        size_t own_count;
        int rc = manifest_read(vm, point, &manifest, reterr);

        for (size_t i = 0; rc >= 0 && i < manifest->disk_count; i++)
                if (strcmp(manifest->disks[i].name, disk) == 0)
                        rc = volumes_gather(&bytes, i, table, &members, reterr);
        own_count = members.count;
        for (size_t i = 0; rc >= 0 && own_count > 0 && i < manifest->disk_count; i++)
                if (strcmp(manifest->disks[i].name, disk) != 0 &&
                    gather_from(vm, point, manifest->disks[i].name, i, &members, &table->passing) < 0)
                        rc = fail_oom(reterr);
        for (size_t i = 0; rc >= 0 && i < own_count; i++)
                rc = add_volumes(vm, manifest, disk, &members, i, table, reterr);
        return rc;
}

static void close_chains(Chain **chains, size_t count) {
        for (size_t i = 0; i < count; i++)
                chain_unref(chains[i]);
}

static int open_chains(Vm *vm, const char *point, const Strings *disks, Chain **chains, Reason *reterr) {
        for (size_t i = 0; i < disks->count; i++) {
                int rc = chain_open(vm, point, disks->items[i], &chains[i], reterr);

                if (rc < 0) {
                        close_chains(chains, i);
                        return rc;
                }
        }
        return 0;
}

int volume_open(Vm *vm, const char *point, const Partition *volume, ChainView **ret, Reason *reterr) {
        ViewPlace place = { 0, volume->start };
        ViewPiece all = { volume->size, 0, 1, &place };
        CLEANUP(freep) Chain **chains = calloc(volume->disks.count, sizeof *chains);
        int rc;

        if (!chains)
                return fail_oom(reterr);
        rc = open_chains(vm, point, &volume->disks, chains, reterr);
        if (rc < 0)
                return rc;
        rc = chain_view_pieces(chains, volume->disks.count, volume->pieces ?: &all, volume->pieces ? volume->piece_count : 1,
                               ret, reterr);
        if (rc < 0)
                close_chains(chains, volume->disks.count);
        return rc;
}
