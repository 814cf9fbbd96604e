#include "partitions/partition-table.h"

#include <errno.h>

#include "random.h"
#include "unit.h"
#include "util/bytes.h"

#define MIB (UINT64_C(1) << 20)
#define DISK (64 * MIB)

/* A disk in memory, of which a range may be unreadable. */
typedef struct Disk {
        unsigned char *bytes;
        uint64_t bad_start, bad_end, reads;
} Disk;

static int read_disk(void *context, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        Disk *disk = context;

        CHECK(offset <= DISK && length <= DISK - offset);
        disk->reads += length;
        if (offset < disk->bad_end && offset + length > disk->bad_start)
                return fail(reterr, -EIO, "block 7 is damaged");
        memcpy(buffer, disk->bytes + offset, length);
        return 0;
}

static int is_zero(void *context, uint64_t offset, size_t length) {
        Disk *disk = context;

        return bytes_are_zero(disk->bytes + offset, length);
}

static Disk disk_new(void) {
        return (Disk) { .bytes = calloc(1, DISK) };
}

static PartitionTable *look(Disk *disk) {
        DiskBytes bytes = { DISK, read_disk, is_zero, disk };
        Reason reason = REASON_INIT;
        PartitionTable *table;

        CHECK_INT(partition_table_read(&bytes, &table, &reason), 0);
        return table;
}

/* An entry of an MBR, or of a record of logical partitions; in sectors. */
static void set_entry(unsigned char *sector, unsigned index, unsigned type, uint32_t start, uint32_t length) {
        unsigned char *entry = sector + 446 + index * 16;

        entry[4] = (unsigned char) type;
        store_le32(entry + 8, start);
        store_le32(entry + 12, length);
        sector[510] = 0x55;
        sector[511] = 0xaa;
}

static void an_empty_disk_has_no_table_and_no_trouble(void) {
        Disk disk = disk_new();
        PartitionTable *table = look(&disk);

        CHECK(!table->scheme && !table->trouble && !table->filesystem.type);
        CHECK_INT(table->count, 0);
        CHECK_INT(disk.reads, 0);
        partition_table_unref(table);
        free(disk.bytes);
}

static void logical_partitions_are_followed_far_into_the_disk(void) {
        Disk disk = disk_new();
        PartitionTable *table;

        set_entry(disk.bytes, 0, 0x83, 2048, 2048);
        set_entry(disk.bytes, 1, 0x0f, 8192, 100000);
        for (unsigned i = 0; i < 10; i++) {
                unsigned char *record = disk.bytes + (8192 + i * 8192) * 512;

                set_entry(record, 0, 0x83, 2048, 4096);
                if (i < 9)
                        set_entry(record, 1, 0x05, (i + 1) * 8192, 8192);
        }
        table = look(&disk);
        CHECK_TEXT(table->scheme, "dos");
        CHECK(!table->trouble);
        CHECK_INT(table->count, 12);
        CHECK(!table->partitions[1].readable);
        for (unsigned i = 0; i < 10; i++) {
                CHECK_INT(table->partitions[2 + i].number, 5 + i);
                CHECK_INT(table->partitions[2 + i].start, (8192 + i * 8192 + 2048) * 512);
                CHECK_INT(table->partitions[2 + i].size, 4096 * 512);
        }
        partition_table_unref(table);
        free(disk.bytes);
}

static void records_that_lead_round_in_a_circle_come_to_an_end(void) {
        Disk disk = disk_new();
        PartitionTable *table;

        set_entry(disk.bytes, 0, 0x05, 8192, 100000);
        for (unsigned i = 0; i < 2; i++) {
                unsigned char *record = disk.bytes + (8192 + i * 8192) * 512;

                set_entry(record, 0, 0x83, 2048, 4096);
                set_entry(record, 1, 0x05, i == 0 ? 8192 : 0, 8192);
        }
        table = look(&disk);
        CHECK_INT(table->count, 3);
        partition_table_unref(table);
        free(disk.bytes);
}

static void partitions_past_the_end_are_not_readable(void) {
        Disk disk = disk_new();
        PartitionTable *table;

        set_entry(disk.bytes, 0, 0x83, 2048, 2048);
        set_entry(disk.bytes, 1, 0x83, 4096, UINT32_MAX);
        set_entry(disk.bytes, 2, 0xa5, UINT32_MAX, UINT32_MAX);
        set_entry(disk.bytes, 3, 0x82, (uint32_t) (DISK / 512), 1);
        table = look(&disk);
        CHECK_INT(table->count, 4);
        CHECK(table->partitions[0].readable);
        for (unsigned i = 1; i < 4; i++) {
                CHECK(!table->partitions[i].readable);
                CHECK_TEXT(table->partitions[i].trouble, "it does not lie within the disk");
        }
        partition_table_unref(table);
        free(disk.bytes);
}

static void what_announces_a_gpt_and_has_none_is_broken(void) {
        Disk disk = disk_new();
        PartitionTable *table;

        set_entry(disk.bytes, 0, 0xee, 1, UINT32_MAX);
        table = look(&disk);
        CHECK(!table->scheme);
        CHECK(table->trouble && strstr(table->trouble, "announces a GPT"));
        partition_table_unref(table);
        free(disk.bytes);
}

static void a_table_that_cannot_be_read_says_so_and_may_come_back(void) {
        Disk disk = disk_new();
        PartitionTable *table;

        set_entry(disk.bytes, 0, 0x83, 2048, 2048);
        disk.bad_end = 4096;
        table = look(&disk);
        CHECK(!table->scheme && table->passing);
        CHECK_TEXT(table->trouble, "block 7 is damaged");
        partition_table_unref(table);

        /* Beside the table: that is told, and no more. */
        disk.bad_start = 8192;
        disk.bad_end = 12288;
        table = look(&disk);
        CHECK_TEXT(table->scheme, "dos");
        CHECK_INT(table->count, 1);
        CHECK_TEXT(table->trouble, "block 7 is damaged");
        partition_table_unref(table);
        free(disk.bytes);
}

static void random_bytes_are_survived(void) {
        for (unsigned round = 0; round < 200; round++) {
                Disk disk = disk_new();
                PartitionTable *table;

                random_bytes(disk.bytes, 8192);
                disk.bytes[510] = 0x55;
                disk.bytes[511] = 0xaa;
                for (unsigned i = 0; i < 4; i++) {
                        disk.bytes[446 + i * 16] &= 0x80;
                        if (round % 2)
                                disk.bytes[446 + i * 16 + 4] = 0x05;
                        store_le32(disk.bytes + 446 + i * 16 + 8, random_below(DISK / 512 + 10));
                }
                for (uint64_t at = 0; at < DISK; at += 512)
                        if (round % 2)
                                memcpy(disk.bytes + at, disk.bytes, 512);
                table = look(&disk);
                CHECK(table->count <= PARTITIONS_MAX);
                for (size_t i = 0; i < table->count; i++)
                        CHECK(!table->partitions[i].readable ||
                              table->partitions[i].start + table->partitions[i].size <= DISK);
                partition_table_unref(table);
                free(disk.bytes);
        }
}

int main(void) {
        RUN(an_empty_disk_has_no_table_and_no_trouble);
        RUN(logical_partitions_are_followed_far_into_the_disk);
        RUN(records_that_lead_round_in_a_circle_come_to_an_end);
        RUN(partitions_past_the_end_are_not_readable);
        RUN(what_announces_a_gpt_and_has_none_is_broken);
        RUN(a_table_that_cannot_be_read_says_so_and_may_come_back);
        RUN(random_bytes_are_survived);
        return unit_result();
}
