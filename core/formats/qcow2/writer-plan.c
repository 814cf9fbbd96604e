#include "formats/qcow2/writer-plan.h"

#include <errno.h>
#include <string.h>

#include "formats/qcow2/header.h"
#include "formats/qcow2/layout.h"
#include "util/bytes.h"

#define SECTOR 512u
#define TABLES_MAX (UINT64_C(32) << 20 >> 3) /* entries of an L1 table that QEMU takes */
#define BLOCKS_CLUSTERS_MAX (UINT64_C(8) << 20 >> WRITER_CLUSTER_BITS) /* of the table of blocks that QEMU takes */
#define BACKING_FORMAT "qcow2"

int writer_plan_make(uint64_t disk_size, const char *backing, WriterPlan *ret, Reason *reterr) {
        WriterPlan plan = { .backing = backing, .blocks_start = 1 };
        uint64_t wanted;

        if (disk_size > TABLES_MAX * WRITER_ENTRIES * WRITER_CLUSTER)
                return fail(reterr, -EFBIG, "a disk of %llu bytes is more than a qcow2 image can have",
                            (unsigned long long) disk_size);
        if (backing && strlen(backing) > QCOW2_NAME_MAX)
                return fail(reterr, -ENAMETOOLONG, "the backing file's name is too long");
        plan.disk_size = round_up(disk_size, SECTOR);
        plan.clusters = divide_up(disk_size, WRITER_CLUSTER);
        plan.tables = max_u64(divide_up(plan.clusters, WRITER_ENTRIES), 1);
        plan.l1_count = divide_up(plan.tables * 8, WRITER_CLUSTER);
        wanted = 1 + plan.l1_count + plan.clusters + plan.tables;
        /* What interrupted ones left without use is counted as well: room for twice as much costs nothing. */
        plan.blocks_count = min_u64(divide_up(2 * wanted, (uint64_t) WRITER_COUNTS * WRITER_ENTRIES), BLOCKS_CLUSTERS_MAX);
        plan.l1_start = plan.blocks_start + plan.blocks_count;
        plan.first_block = plan.l1_start + plan.l1_count;
        plan.start = plan.first_block + 1;
        wanted += plan.blocks_count;
        plan.expected = wanted + divide_up(wanted, WRITER_COUNTS - 1);
        plan.limit = plan.blocks_count * WRITER_ENTRIES * WRITER_COUNTS;
        *ret = plan;
        return 0;
}

/* What follows the fixed part. */
static void add_backing(const char *backing, unsigned char *header) {
        uint32_t at = QCOW2_HEADER_LENGTH_V3, length = (uint32_t) strlen(backing);

        store_be32(header + at, QCOW2_EXTENSION_BACKING_FORMAT);
        store_be32(header + at + 4, sizeof BACKING_FORMAT - 1);
        memcpy(header + at + 8, BACKING_FORMAT, sizeof BACKING_FORMAT - 1);
        at += 8 + 8 + 8; /* the name of the format, padded, and the end of the extensions */
        store_be64(header + 8, at);
        store_be32(header + 16, length);
        memcpy(header + at, backing, length);
}

void writer_plan_header(const WriterPlan *plan, bool finished, unsigned char *ret) {
        memset(ret, 0, WRITER_CLUSTER);
        memcpy(ret, QCOW2_MAGIC, 4);
        store_be32(ret + 4, 3);
        store_be32(ret + 20, WRITER_CLUSTER_BITS);
        store_be64(ret + 24, plan->disk_size);
        store_be32(ret + 36, (uint32_t) plan->tables);
        store_be64(ret + 40, plan->l1_start << WRITER_CLUSTER_BITS);
        store_be64(ret + 48, plan->blocks_start << WRITER_CLUSTER_BITS);
        store_be32(ret + 56, (uint32_t) plan->blocks_count);
        store_be64(ret + 72, finished ? 0 : QCOW2_FEATURE_DIRTY);
        store_be32(ret + 96, 4); /* 2 ** 4 bits of a reference count */
        store_be32(ret + 100, QCOW2_HEADER_LENGTH_V3);
        if (plan->backing)
                add_backing(plan->backing, ret);
}
