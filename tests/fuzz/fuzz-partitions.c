/* tests/fuzz/fuzz-partitions.c - a partition table, and the superblocks of what is in the partitions.
 *
 * The input is the disk's size in MiB (one byte), then its beginning; a quarter of that stands at the disk's end as well,
 * where a GPT has its copy. */
#include <errno.h>

#include "fuzz.h"
#include "partitions/lvm.h"
#include "partitions/partitions.h"
#include "partitions/volumes.h"
#include "util/bytes.h"

typedef struct Disk {
        const uint8_t *head, *tail;
        size_t head_length, tail_length;
        uint64_t size;
} Disk;

static void copy(const uint8_t *from, uint64_t from_start, size_t from_length, void *buffer, uint64_t offset,
                 size_t length) {
        uint64_t start = max_u64(from_start, offset), end = min_u64(from_start + from_length, offset + length);

        if (start < end)
                memcpy((uint8_t *) buffer + (start - offset), from + (start - from_start), (size_t) (end - start));
}

static int read_disk(void *context, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        const Disk *disk = context;

        if (offset > disk->size || length > disk->size - offset)
                abort();
        memset(buffer, 0, length);
        copy(disk->head, 0, disk->head_length, buffer, offset, length);
        copy(disk->tail, disk->size - disk->tail_length, disk->tail_length, buffer, offset, length);
        /* Damage, in a place of its own. */
        return offset >> 20 == 13 ? fail(reterr, -EIO, "damaged") : 0;
}

static int is_zero(void *context, uint64_t offset, size_t length) {
        const Disk *disk = context;

        return offset >= disk->head_length && offset + length <= disk->size - disk->tail_length;
}

static void look_for_volumes(const LvmMembers *members, size_t own, uint64_t disk_size) {
        CLEANUP(lvm_volumes_clear) LvmVolumes volumes = { 0 };

        (void) lvm_volumes_find(members, own, &volumes, NULL);
        for (size_t i = 0; i < volumes.count; i++)
                for (size_t piece = 0; piece < volumes.items[i].piece_count; piece++) {
                        const ViewPiece *found = &volumes.items[i].pieces[piece];

                        for (size_t place = 0; place < found->place_count; place++)
                                if (found->places[place].start > disk_size ||
                                    found->size / found->place_count > disk_size - found->places[place].start)
                                        abort();
                }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        Disk disk = { 0 };
        DiskBytes bytes = { 0, read_disk, is_zero, &disk };
        CLEANUP(partition_table_unrefp) PartitionTable *table = NULL;
        CLEANUP(lvm_members_clear) LvmMembers members = { 0 };
        json_t *object;

        if (size < 1)
                return 0;
        disk.size = (uint64_t) data[0] << 20;
        disk.head = data + 1;
        disk.head_length = (size_t) min_u64(size - 1, disk.size);
        disk.tail_length = disk.head_length / 4;
        disk.tail = disk.head;
        bytes.size = disk.size;
        if (partition_table_read(&bytes, &table, NULL) < 0)
                return 0;
        if (table->count > PARTITIONS_MAX)
                abort();
        for (size_t i = 0; i < table->count; i++)
                if (table->partitions[i].readable && (table->partitions[i].start > disk.size ||
                                                      table->partitions[i].size > disk.size - table->partitions[i].start))
                        abort();
        (void) volumes_gather(&bytes, 0, table, &members, NULL);
        for (size_t i = 0; i < members.count; i++)
                look_for_volumes(&members, i, disk.size);
        object = json_object();
        (void) partitions_describe("vda", table, object);
        json_decref(object);
        return 0;
}
