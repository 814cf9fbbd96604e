#include "partitions/partition-table.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "util/bytes.h"

#define HEAD (1u << 20) /* bytes at both ends of a disk where tables lie */
#define PARTITION_HEAD (64u << 10) /* and of a partition, for a table within it */
#define LINKS 256 /* from one logical partition to the next; libblkid follows fewer */
#define ROUNDS 4  /* tables within tables */
#define SECTOR 512 /* what libblkid counts in, whatever the disk's are */
#define LARGE_SECTOR 4096
#define MBR_ENTRIES 446
#define MBR_GPT 0xee
#define MBR_REACH (UINT64_C(1) << 33) /* sectors: of 32 bits each, the start and the length */

static void partition_clear(Partition *partition) {
        view_pieces_free(partition->pieces, partition->piece_count);
        strings_free(&partition->disks);
        free(partition->volume);
        free(partition->scheme);
        free(partition->type);
        free(partition->name);
        free(partition->uuid);
        free(partition->trouble);
        filesystem_clear(&partition->filesystem);
}

PartitionTable *partition_table_ref(PartitionTable *table) {
        __atomic_add_fetch(&table->references, 1, __ATOMIC_RELAXED);
        return table;
}

PartitionTable *partition_table_unref(PartitionTable *table) {
        if (!table || __atomic_sub_fetch(&table->references, 1, __ATOMIC_ACQ_REL) > 0)
                return NULL;
        for (size_t i = 0; i < table->count; i++)
                partition_clear(&table->partitions[i]);
        free(table->partitions);
        free(table->scheme);
        free(table->id);
        free(table->trouble);
        filesystem_clear(&table->filesystem);
        free(table);
        return NULL;
}

bool partition_set_trouble(char **trouble, const char *words) {
        if (!*trouble)
                *trouble = strdup(words);
        return *trouble;
}

/* false: no memory. text may be NULL. */
static bool copy_text(const char *text, char **ret) {
        if (!text || !*text)
                return true;
        *ret = strdup(text);
        return *ret;
}

static void free_probe(blkid_probe *probe) {
        if (*probe)
                blkid_free_probe(*probe);
}

static bool is_mbr(const unsigned char *sector) {
        return sector[510] == 0x55 && sector[511] == 0xaa;
}

static bool is_extended(unsigned type) {
        return type == 0x05 || type == 0x0f || type == 0x85;
}

/* libblkid looks at a disk of that size, whatever the sketch has. */
static int run_with_size(Sketch *sketch, uint64_t size, unsigned sector_size, blkid_probe *ret_probe,
                         blkid_partlist *ret_list) {
        CLEANUP(free_probe) blkid_probe probe = blkid_new_probe();

        if (ftruncate(sketch_fd(sketch), (off_t) size) < 0 || !probe ||
            blkid_probe_set_device(probe, sketch_fd(sketch), 0, (blkid_loff_t) size) < 0 ||
            blkid_probe_set_sectorsize(probe, sector_size) < 0)
                return -ENOMEM;
        *ret_list = blkid_probe_get_partitions(probe);
        *ret_probe = STEAL_PTR(probe);
        return 0;
}

static bool read_first(Sketch *sketch, unsigned char sector[static SECTOR]) {
        return pread(sketch_fd(sketch), sector, SECTOR, 0) == SECTOR;
}

static int run(Sketch *sketch, unsigned sector_size, blkid_probe *ret_probe, blkid_partlist *ret_list) {
        CLEANUP(free_probe) blkid_probe probe = NULL;
        unsigned char sector[SECTOR];
        int rc = run_with_size(sketch, sketch_size(sketch), sector_size, &probe, ret_list);

        /* Some partitions past the end make it give up all of an MBR: it is told of the longest disk that one can be for. */
        if (rc >= 0 && !*ret_list && read_first(sketch, sector) && is_mbr(sector)) {
                blkid_free_probe(STEAL_PTR(probe));
                rc = run_with_size(sketch, max_u64(sketch_size(sketch), MBR_REACH * sector_size), sector_size, &probe,
                                   ret_list);
        }
        if (rc < 0)
                return rc;
        *ret_probe = STEAL_PTR(probe);
        return 0;
}

/* Copies the records of an extended partition: each leads to the next one. 1: something came. */
static int copy_links(Sketch *sketch, uint64_t first, unsigned sector_size) {
        uint64_t at = first;
        int added = 0;

        for (unsigned i = 0; i < LINKS; i++) {
                unsigned char sector[SECTOR];
                uint64_t next = 0;
                int rc = sketch_add(sketch, at, SECTOR);

                if (rc < 0)
                        return rc;
                added |= rc;
                if (pread(sketch_fd(sketch), sector, sizeof sector, (off_t) at) != sizeof sector || !is_mbr(sector))
                        break;
                for (size_t entry = 0; next == 0 && entry < 4; entry++) {
                        const unsigned char *fields = sector + MBR_ENTRIES + entry * 16;

                        if (is_extended(fields[4]) && load_le32(fields + 12) > 0)
                                next = (uint64_t) load_le32(fields + 8) * sector_size;
                }
                if (next == 0 || first + next <= at)
                        break;
                at = first + next;
        }
        return added;
}

/* Copies what the partitions that were found lead to: the records of logical ones, and the beginnings of the others, where a
 * table may be within. 1: something came. */
static int copy_more(Sketch *sketch, blkid_partlist list, unsigned sector_size) {
        int count = list ? blkid_partlist_numof_partitions(list) : 0, added = 0;

        for (int i = 0; i < count && i < PARTITIONS_MAX; i++) {
                blkid_partition partition = blkid_partlist_get_partition(list, i);
                uint64_t start = (uint64_t) blkid_partition_get_start(partition), offset;
                int rc = 0;

                if (__builtin_mul_overflow(start, SECTOR, &offset) || offset > INT64_MAX - HEAD)
                        continue;
                if (blkid_partition_is_extended(partition))
                        rc = copy_links(sketch, offset, sector_size);
                else if (!blkid_partition_is_logical(partition))
                        rc = sketch_add(sketch, offset, PARTITION_HEAD);
                if (rc < 0)
                        return rc;
                added |= rc;
        }
        return added;
}

/* A protective MBR alone makes a list without a table. */
static bool has_table(blkid_partlist list) {
        return list && blkid_partlist_get_table(list);
}

/* Runs libblkid until all has been copied that it wants to see. The end of the disk is looked at where the beginning has no
 * table: an archive may have to be unpacked for it. */
static int look(Sketch *sketch, unsigned sector_size, blkid_probe *ret_probe, blkid_partlist *ret_list) {
        uint64_t size = sketch_size(sketch);
        int rc = sketch_add(sketch, 0, HEAD);

        for (unsigned round = 1; rc >= 0; round++) {
                CLEANUP(free_probe) blkid_probe probe = NULL;
                blkid_partlist list;

                rc = run(sketch, sector_size, &probe, &list);
                if (rc >= 0 && !has_table(list) && size > HEAD)
                        rc = sketch_add(sketch, size - HEAD, HEAD);
                else if (rc >= 0)
                        rc = copy_more(sketch, list, sector_size);
                if (rc == 0 || (rc > 0 && round == ROUNDS)) {
                        *ret_probe = STEAL_PTR(probe);
                        *ret_list = list;
                        return 0;
                }
        }
        return rc;
}

/* Where it lies, and whether that is somewhere on the disk. */
static int place(Partition *partition, blkid_partition from, uint64_t disk_size) {
        uint64_t start = (uint64_t) blkid_partition_get_start(from), size = (uint64_t) blkid_partition_get_size(from);
        uint64_t end;

        if (__builtin_mul_overflow(start, SECTOR, &partition->start) ||
            __builtin_mul_overflow(size, SECTOR, &partition->size) ||
            __builtin_add_overflow(partition->start, partition->size, &end) || end > disk_size || partition->size == 0)
                return partition_set_trouble(&partition->trouble, "it does not lie within the disk") ? 0 : -ENOMEM;
        partition->readable = !blkid_partition_is_extended(from);
        return 0;
}

static int take_partition(const DiskBytes *disk, blkid_partition from, Partition *partition, Reason *reterr) {
        char number[16];
        const char *type = blkid_partition_get_type_string(from);
        blkid_parttable scheme = blkid_partition_get_table(from);

        *partition = (Partition) { .number = (unsigned) blkid_partition_get_partno(from) };
        snprintf(number, sizeof number, "0x%x", (unsigned) blkid_partition_get_type(from));
        if (!copy_text(type ?: number, &partition->type) ||
            !copy_text(blkid_parttable_get_type(scheme), &partition->scheme) ||
            !copy_text(blkid_partition_get_name(from), &partition->name) ||
            !copy_text(blkid_partition_get_uuid(from), &partition->uuid) || place(partition, from, disk->size) < 0)
                return fail_oom(reterr);
        if (!partition->readable)
                return 0;
        return filesystem_identify(disk, partition->start, partition->size, &partition->filesystem, &partition->trouble,
                                   reterr);
}

static int compare_numbers(const void *a, const void *b) {
        unsigned x = ((const Partition *) a)->number, y = ((const Partition *) b)->number;

        return (x > y) - (x < y);
}

static int take_partitions(const DiskBytes *disk, blkid_partlist list, PartitionTable *table, Reason *reterr) {
        int count = blkid_partlist_numof_partitions(list);
        int rc = 0;

        if (count <= 0)
                return 0;
        if (count > PARTITIONS_MAX) {
                count = PARTITIONS_MAX;
                if (!partition_set_trouble(&table->trouble, "it has more partitions than are shown"))
                        return fail_oom(reterr);
        }
        table->partitions = calloc((size_t) count, sizeof *table->partitions);
        if (!table->partitions)
                return fail_oom(reterr);
        for (int i = 0; rc >= 0 && i < count; i++)
                rc = take_partition(disk, blkid_partlist_get_partition(list, i), &table->partitions[table->count++], reterr);
        qsort(table->partitions, table->count, sizeof *table->partitions, compare_numbers);
        return rc;
}

/* What stands on the disk though libblkid finds no table: words, or NULL. */
static const char *broken_table(Sketch *sketch) {
        unsigned char sector[SECTOR];
        char signature[8];

        bool has_mbr = read_first(sketch, sector) && is_mbr(sector);

        for (size_t i = 0; has_mbr && i < 4; i++)
                if (sector[MBR_ENTRIES + i * 16 + 4] == MBR_GPT)
                        return "the partition table is broken: the first sector announces a GPT, of which no copy is valid";
        for (off_t at = 512; at <= 4096; at += 4096 - 512)
                if (pread(sketch_fd(sketch), signature, sizeof signature, at) == sizeof signature &&
                    memcmp(signature, "EFI PART", sizeof signature) == 0)
                        return "the partition table is broken: there is a GPT, which the first sector does not announce";
        if (has_mbr)
                return "the partition table is broken: the first sector is marked as an MBR, and is none";
        return NULL;
}

static bool is_copy(blkid_parttable scheme, uint64_t disk_size) {
        return strcmp(blkid_parttable_get_type(scheme), "gpt") == 0 &&
               (uint64_t) blkid_parttable_get_offset(scheme) > disk_size / 2;
}

static int take_table(const DiskBytes *disk, blkid_partlist list, PartitionTable *table, Reason *reterr) {
        blkid_parttable scheme = blkid_partlist_get_table(list);

        if (!copy_text(blkid_parttable_get_type(scheme), &table->scheme) ||
            !copy_text(blkid_parttable_get_id(scheme), &table->id))
                return fail_oom(reterr);
        if (is_copy(scheme, disk->size) &&
            !partition_set_trouble(&table->trouble, "the first GPT is broken: the copy at the disk's end was taken"))
                return fail_oom(reterr);
        return take_partitions(disk, list, table, reterr);
}

/* The table that stands on the disk if its sectors are that long. */
static int read_with(const DiskBytes *disk, unsigned sector_size, PartitionTable **ret, Reason *reterr) {
        CLEANUP(partition_table_unrefp) PartitionTable *table = calloc(1, sizeof *table);
        CLEANUP(sketch_freep) Sketch *sketch = NULL;
        CLEANUP(free_probe) blkid_probe probe = NULL;
        const char *words = NULL;
        blkid_partlist list;
        int rc;

        if (!table)
                return fail_oom(reterr);
        table->references = 1;
        table->sector_size = sector_size;
        rc = sketch_new(disk, 0, disk->size, &sketch, reterr);
        if (rc < 0)
                return rc;
        if (look(sketch, sector_size, &probe, &list) < 0)
                return fail_oom(reterr);
        if (has_table(list))
                rc = take_table(disk, list, table, reterr);
        else
                words = broken_table(sketch);
        if (rc < 0)
                return rc;
        if (sketch_trouble(sketch)) {
                table->passing = true;
                words = sketch_trouble(sketch);
        }
        if (words && !partition_set_trouble(&table->trouble, words))
                return fail_oom(reterr);
        *ret = STEAL_PTR(table);
        return 0;
}

/* A disk without a table is one file system, or empty. */
static int identify_whole(const DiskBytes *disk, PartitionTable *table, Reason *reterr) {
        CLEANUP(freep) char *trouble = NULL;
        int rc = filesystem_identify(disk, 0, disk->size, &table->filesystem, &trouble, reterr);

        if (rc < 0)
                return rc;
        if (table->filesystem.type && !table->passing) { /* that was its boot sector */
                free(table->trouble);
                table->trouble = NULL;
        }
        return trouble && !partition_set_trouble(&table->trouble, trouble) ? fail_oom(reterr) : 0;
}

static size_t count_known(const PartitionTable *table) {
        size_t known = 0;

        for (size_t i = 0; i < table->count; i++)
                known += table->partitions[i].filesystem.type != NULL;
        return known;
}

static bool is_within(const PartitionTable *table) {
        for (size_t i = 0; i < table->count; i++)
                if (table->partitions[i].start + table->partitions[i].size < table->partitions[i].start ||
                    (!table->partitions[i].readable && table->partitions[i].trouble))
                        return false;
        return true;
}

/* Whether its sectors may be longer: an MBR looks the same with either size. */
static bool is_doubtful(const PartitionTable *table) {
        if (!table->scheme)
                return table->trouble;
        return strcmp(table->scheme, "dos") == 0 && count_known(table) == 0;
}

/* Whether sectors of 4096 bytes make more sense of the disk. */
static bool is_better(const PartitionTable *table, const PartitionTable *than) {
        if (!table->scheme || !is_within(table))
                return false;
        return !than->scheme || count_known(table) > 0;
}

int partition_table_read(const DiskBytes *disk, PartitionTable **ret, Reason *reterr) {
        CLEANUP(partition_table_unrefp) PartitionTable *table = NULL;
        CLEANUP(partition_table_unrefp) PartitionTable *large = NULL;
        int rc;

        rc = read_with(disk, SECTOR, &table, reterr);
        if (rc >= 0 && is_doubtful(table))
                rc = read_with(disk, LARGE_SECTOR, &large, reterr);
        if (rc < 0)
                return rc;
        if (large && is_better(large, table)) {
                partition_table_unref(table);
                table = STEAL_PTR(large);
        }
        if (!table->scheme)
                rc = identify_whole(disk, table, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(table);
        return 0;
}
