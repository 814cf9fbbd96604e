#include "formats/qcow2/leaf.h"

#include <errno.h>
#include <stdlib.h>

#include "formats/qcow2/layout.h"
#include "util/bytes.h"

#define LEAF_CLUSTERS_BITS 13          /* as many as an L2 table of 64 KiB has */
#define LEAF_CLUSTERS_BITS_EXTENDED 11 /* with 32 subclusters each */
#define LEAF_TABLES_MAX (1u << 7)      /* that a leaf can span: the smallest has 64 entries */
#define PIECE (64u << 10)              /* bytes of a table that are read at once: mostly all of it */
#define SUBCLUSTER_BITS 5
#define SECTOR 512u

#define L1_RESERVED (UINT64_C(0x1ff) | UINT64_C(0x7f) << 56)
#define L2_RESERVED (UINT64_C(0x1fe) | UINT64_C(0x3f) << 56)

typedef enum Damage {
        DAMAGE_L1_RESERVED,
        DAMAGE_TABLE_UNALIGNED,
        DAMAGE_TABLE_PAST_END,
        DAMAGE_TABLE_UNREAD,
        DAMAGE_ENTRY_RESERVED,
        DAMAGE_ENTRY_ZERO_FLAG,
        DAMAGE_ENTRY_BITMAP,
        DAMAGE_ENTRY_COMPRESSED,
        DAMAGE_CLUSTER_UNALIGNED,
        DAMAGE_CLUSTER_PAST_END,
        DAMAGE_CLUSTER_ELSEWHERE,
} Damage;

static const char *const damages[] = {
        [DAMAGE_L1_RESERVED] = "its entry in the L1 table has reserved bits set",
        [DAMAGE_TABLE_UNALIGNED] = "its L2 table lies at no multiple of the cluster size",
        [DAMAGE_TABLE_PAST_END] = "its L2 table lies past the file's end",
        [DAMAGE_TABLE_UNREAD] = "its L2 table cannot be read",
        [DAMAGE_ENTRY_RESERVED] = "its entry in the L2 table has reserved bits set",
        [DAMAGE_ENTRY_ZERO_FLAG] = "its entry in the L2 table says zeroes, which this version of the format cannot",
        [DAMAGE_ENTRY_BITMAP] = "its entry in the L2 table says two things of a subcluster",
        [DAMAGE_ENTRY_COMPRESSED] = "its cluster is compressed, which one in a data file cannot be",
        [DAMAGE_CLUSTER_UNALIGNED] = "its cluster lies at no multiple of the cluster size",
        [DAMAGE_CLUSTER_PAST_END] = "its cluster lies past the file's end",
        [DAMAGE_CLUSTER_ELSEWHERE] = "its cluster is not at its place in the data file",
};

const char *leaf_damage(const Run *run) {
        return damages[run->host];
}

static uint32_t leaf_clusters_bits(const Qcow2Header *header) {
        return header->extended ? LEAF_CLUSTERS_BITS_EXTENDED : LEAF_CLUSTERS_BITS;
}

uint64_t leaf_span(const Qcow2Header *header) {
        return UINT64_C(1) << (leaf_clusters_bits(header) + header->cluster_bits);
}

/* A leaf as it is put together. */
typedef struct Builder {
        const Qcow2Tables *tables;
        Leaf *leaf;
        uint32_t capacity;
        uint32_t unit;        /* the next one */
        unsigned char *piece; /* PIECE bytes, once there is something to read */
} Builder;

static size_t leaf_size(uint32_t runs) {
        return sizeof(Leaf) + ((size_t) runs + 1) * sizeof(Run);
}

/* Whether the next units go on as the last run does. */
static bool goes_on(const Builder *builder, const Run *last, RunKind kind, uint64_t host) {
        if (last->kind != kind || kind == RUN_COMPRESSED)
                return false;
        if (kind == RUN_DATA)
                return last->host + ((uint64_t) (builder->unit - last->unit) << builder->leaf->unit_bits) == host;
        return last->host == host;
}

static int add_units(Builder *builder, uint32_t units, RunKind kind, uint64_t host, uint32_t length) {
        Leaf *leaf = builder->leaf;

        if (leaf->count > 0 && goes_on(builder, &leaf->runs[leaf->count - 1], kind, host)) {
                builder->unit += units;
                return 0;
        }
        if (leaf->count == builder->capacity) {
                uint32_t capacity = builder->capacity * 2;

                leaf = realloc(builder->leaf, leaf_size(capacity));
                if (!leaf)
                        return -ENOMEM;
                builder->leaf = leaf;
                builder->capacity = capacity;
        }
        leaf->runs[leaf->count++] = (Run) { host, builder->unit, (uint32_t) kind, length & ((1u << 29) - 1) };
        builder->unit += units;
        return 0;
}

static uint32_t units_per_cluster(const Qcow2Header *header) {
        return header->extended ? 1u << SUBCLUSTER_BITS : 1;
}

static int add_clusters(Builder *builder, uint64_t clusters, RunKind kind, uint64_t host) {
        return add_units(builder, (uint32_t) (clusters * units_per_cluster(builder->tables->header)), kind, host, 0);
}

static int add_damaged(Builder *builder, uint64_t clusters, Damage damage) {
        return add_clusters(builder, clusters, RUN_DAMAGED, damage);
}

static int add_compressed(Builder *builder, uint64_t entry) {
        const Qcow2Tables *tables = builder->tables;
        uint32_t length_bits = tables->header->cluster_bits - 8, offset_bits = 62 - length_bits;
        uint64_t host = entry & ((UINT64_C(1) << offset_bits) - 1);
        uint64_t sectors = entry >> offset_bits & ((UINT64_C(1) << length_bits) - 1);
        uint64_t length = (sectors + 1) * SECTOR - host % SECTOR;

        if (tables->header->has_data_file)
                return add_damaged(builder, 1, DAMAGE_ENTRY_COMPRESSED);
        if (host >> 56)
                return add_damaged(builder, 1, DAMAGE_ENTRY_RESERVED);
        if (host >= tables->data_length)
                return add_damaged(builder, 1, DAMAGE_CLUSTER_PAST_END);
        /* The last one's sector need not be whole. */
        length = min_u64(length, tables->data_length - host);
        return add_units(builder, units_per_cluster(tables->header), RUN_COMPRESSED, host, (uint32_t) length);
}

/* Where the next unit begins on the disk. */
static uint64_t next_offset(const Builder *builder) {
        return builder->leaf->start + ((uint64_t) builder->unit << builder->leaf->unit_bits);
}

/* The next unit's bytes: of a disk that ends within it no more than those. */
static int add_data_unit(Builder *builder, uint64_t host) {
        const Qcow2Tables *tables = builder->tables;
        uint64_t needed = min_u64(UINT64_C(1) << builder->leaf->unit_bits, tables->state.disk_size - next_offset(builder));

        if (host > tables->data_length || needed > tables->data_length - host)
                return add_units(builder, 1, RUN_DAMAGED, DAMAGE_CLUSTER_PAST_END, 0);
        return add_units(builder, 1, RUN_DATA, host, 0);
}

/* The units of one cluster that has subclusters. */
static int add_subclusters(Builder *builder, uint64_t host, bool has_host, uint64_t bitmap) {
        uint32_t data = (uint32_t) bitmap, zero = (uint32_t) (bitmap >> 32);
        int rc = 0;

        if (data & zero || (data && !has_host))
                return add_damaged(builder, 1, DAMAGE_ENTRY_BITMAP);
        for (uint32_t i = 0; rc >= 0 && i < 32; i++) {
                /* Those behind the disk's end nobody asks for. */
                bool wanted = next_offset(builder) < builder->tables->state.disk_size;

                if (wanted && data >> i & 1)
                        rc = add_data_unit(builder, host + ((uint64_t) i << builder->leaf->unit_bits));
                else
                        rc = add_units(builder, 1, zero >> i & 1 ? RUN_ZERO : RUN_ABSENT, 0, 0);
        }
        return rc;
}

static int add_entry(Builder *builder, uint64_t entry, uint64_t bitmap) {
        const Qcow2Header *header = builder->tables->header;
        bool apart = header->has_data_file, has_zero_flag = header->version >= 3 && !header->extended;
        uint64_t host = entry & QCOW2_OFFSET_MASK;
        bool has_host = host > 0 || (apart && entry & QCOW2_COPIED);

        if (entry & QCOW2_COMPRESSED)
                return bitmap ? add_damaged(builder, 1, DAMAGE_ENTRY_BITMAP) : add_compressed(builder, entry);
        if (entry & L2_RESERVED || (header->extended && entry & QCOW2_ZERO))
                return add_damaged(builder, 1, DAMAGE_ENTRY_RESERVED);
        if (entry & QCOW2_ZERO && !has_zero_flag)
                return add_damaged(builder, 1, DAMAGE_ENTRY_ZERO_FLAG);
        if (host % (UINT64_C(1) << header->cluster_bits) != 0)
                return add_damaged(builder, 1, DAMAGE_CLUSTER_UNALIGNED);
        if (entry & QCOW2_ZERO)
                return add_clusters(builder, 1, RUN_ZERO, 0);
        if (!has_host && entry & QCOW2_COPIED)
                return add_damaged(builder, 1, DAMAGE_ENTRY_RESERVED);
        if (has_host && apart && host != next_offset(builder))
                return add_damaged(builder, 1, DAMAGE_CLUSTER_ELSEWHERE);
        if (header->extended)
                return add_subclusters(builder, host, has_host, bitmap);
        return has_host ? add_data_unit(builder, host) : add_clusters(builder, 1, RUN_ABSENT, 0);
}

/* count entries of an L2 table. Those of changed images are mostly empty. */
static int add_piece(Builder *builder, const unsigned char *bytes, uint64_t count) {
        uint32_t entry_size = 1u << qcow2_entry_bits(builder->tables->header);
        int rc = 0;

        for (uint64_t i = 0, empty = 0; rc >= 0 && i < count; i += empty ?: 1) {
                const unsigned char *entry = bytes + i * entry_size;

                for (empty = 0; i + empty < count && load_be64(entry + empty * entry_size) == 0 &&
                                load_be64(entry + (empty + 1) * entry_size - 8) == 0;)
                        empty++;
                if (empty > 0)
                        rc = add_clusters(builder, empty, RUN_ABSENT, 0);
                else
                        rc = add_entry(builder, load_be64(entry), entry_size > 8 ? load_be64(entry + 8) : 0);
        }
        return rc;
}

/* count entries of an L2 table that lie at offset. */
static int add_entries(Builder *builder, uint64_t offset, uint64_t count, Reason *reterr) {
        uint32_t entry_size = 1u << qcow2_entry_bits(builder->tables->header);
        int rc = 0;

        builder->piece = builder->piece ?: malloc(PIECE);
        if (!builder->piece)
                return -ENOMEM;
        while (rc >= 0 && count > 0) {
                uint64_t part = min_u64(count, PIECE / entry_size);

                rc = byte_store_read(builder->tables->image, builder->piece, part * entry_size, offset, reterr);
                if (rc < 0) {
                        builder->leaf->damaged = true;
                        return rc == -ENOMEM ? rc : add_damaged(builder, count, DAMAGE_TABLE_UNREAD);
                }
                rc = add_piece(builder, builder->piece, part);
                offset += part * entry_size;
                count -= part;
        }
        return rc;
}

/* count clusters from number first on in the table that an entry of the L1 table leads to. */
static int add_table(Builder *builder, uint64_t entry, uint64_t first, uint64_t count, Reason *reterr) {
        const Qcow2Tables *tables = builder->tables;
        uint64_t size = byte_store_size(tables->image), table = entry & QCOW2_OFFSET_MASK;
        uint32_t entry_bits = qcow2_entry_bits(tables->header);

        if (entry & L1_RESERVED)
                return add_damaged(builder, count, DAMAGE_L1_RESERVED);
        if (table == 0)
                return add_clusters(builder, count, RUN_ABSENT, 0);
        if (table % (UINT64_C(1) << tables->header->cluster_bits) != 0)
                return add_damaged(builder, count, DAMAGE_TABLE_UNALIGNED);
        if (table > size || (first + count) << entry_bits > size - table)
                return add_damaged(builder, count, DAMAGE_TABLE_PAST_END);
        return add_entries(builder, table + (first << entry_bits), count, reterr);
}

/* Clusters [first, end) of the disk. */
static int add_tables(Builder *builder, uint64_t first, uint64_t end, Reason *reterr) {
        const Qcow2Tables *tables = builder->tables;
        uint64_t per_table = UINT64_C(1) << (tables->header->cluster_bits - qcow2_entry_bits(tables->header));
        uint64_t first_table = first / per_table, table_count = divide_up(end, per_table) - first_table;
        unsigned char l1[LEAF_TABLES_MAX * 8];
        int rc;

        rc = byte_store_read(tables->image, l1, table_count * 8, tables->state.l1_offset + first_table * 8, reterr);
        for (uint64_t i = 0; rc >= 0 && i < table_count; i++) {
                uint64_t table_start = (first_table + i) * per_table;
                uint64_t from = max_u64(table_start, first), to = min_u64(table_start + per_table, end);

                rc = add_table(builder, load_be64(l1 + i * 8), from - table_start, to - from, reterr);
        }
        return rc;
}

static void free_building(Builder *builder) {
        free(builder->leaf);
        free(builder->piece);
}

int leaf_load(const Qcow2Tables *tables, uint64_t index, Leaf **ret, size_t *ret_cost, Reason *reterr) {
        const Qcow2Header *header = tables->header;
        uint64_t clusters = divide_up(tables->state.disk_size, UINT64_C(1) << header->cluster_bits);
        uint64_t first = index << leaf_clusters_bits(header);
        uint64_t end = min_u64(clusters, (index + 1) << leaf_clusters_bits(header));
        CLEANUP(free_building) Builder builder = { .tables = tables, .capacity = 8 };
        Leaf *fitted;
        int rc;

        builder.leaf = calloc(1, leaf_size(builder.capacity));
        if (!builder.leaf)
                return fail_oom(reterr);
        builder.leaf->start = first << header->cluster_bits;
        builder.leaf->unit_bits = header->cluster_bits - (header->extended ? SUBCLUSTER_BITS : 0);
        rc = add_tables(&builder, first, end, reterr);
        if (rc < 0)
                return rc == -ENOMEM ? fail_oom(reterr) : rc;
        builder.leaf->runs[builder.leaf->count] = (Run) { .unit = builder.unit };
        fitted = realloc(builder.leaf, leaf_size(builder.leaf->count));
        if (fitted)
                builder.leaf = fitted;
        *ret_cost = leaf_size(builder.leaf->count);
        *ret = STEAL_PTR(builder.leaf);
        return 0;
}

uint32_t leaf_find(const Leaf *leaf, uint64_t offset) {
        uint32_t low = 0, high = leaf->count;

        while (low < high) {
                uint32_t middle = low + (high - low) / 2;

                if (leaf_run_start(leaf, middle + 1) <= offset)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}
