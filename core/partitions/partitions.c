#include "partitions/partitions.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "util/bytes.h"
#include "util/sealed-json.h"

#define KIND_PARTITIONS 1 /* of what is made of a chain */

static int read_chain(void *context, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        return chain_read(context, buffer, length, offset, reterr);
}

static int chain_has_zeroes(void *context, uint64_t offset, size_t length) {
        return chain_is_zero(context, offset, length);
}

static int load(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        DiskBytes disk = { chain_size(context), read_chain, chain_has_zeroes, context };
        PartitionTable *table;
        int rc = partition_table_read(&disk, &table, reterr);

        if (rc < 0)
                return rc;
        *ret_cost = sizeof *table + table->count * (sizeof *table->partitions + 300);
        *ret = table;
        return 0;
}

static void release(void *table) {
        partition_table_unref(table);
}

int partitions_find(Chain *chain, PartitionTable **ret, Reason *reterr) {
        static const CacheLoader loader = { load, release };
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        int rc = chain_get_made(chain, KIND_PARTITIONS, &loader, chain, &entry, reterr);

        if (rc < 0)
                return rc;
        *ret = partition_table_ref(cache_value(entry));
        if ((*ret)->passing)
                cache_drop(entry);
        return 0;
}

int partition_name(const char *disk, const Partition *partition, char *ret, size_t size) {
        size_t length = strlen(disk);
        bool ends_in_digit = length > 0 && isdigit((unsigned char) disk[length - 1]);

        char number[16] = "";

        if (partition->number > 0)
                snprintf(number, sizeof number, "%s%u", ends_in_digit ? "p" : "", partition->number);
        return snprintf(ret, size, "%s%s%s%s", disk, number, partition->volume ? "." : "", partition->volume ?: "");
}

/* Bytes in [start, end) that are no hole. */
static int count_allocated(Chain *chain, uint64_t start, uint64_t end, uint64_t *ret, Reason *reterr) {
        uint64_t allocated = 0;

        while (start < end) {
                ChainExtent extent;
                uint64_t next;
                int rc = chain_next_extent(chain, start, &extent, reterr);

                if (rc < 0)
                        return rc;
                next = min_u64(extent.start + extent.length, end);
                if (extent.state != EXTENT_ZERO)
                        allocated += next - start;
                start = next;
        }
        *ret = allocated;
        return 0;
}

/* Of the partition, or of what is around it: whichever is shorter. */
int partition_allocated(Chain *chain, const Partition *partition, uint64_t disk_allocated, uint64_t *ret, Reason *reterr) {
        uint64_t end = partition->start + partition->size, before, behind;
        int rc;

        if (partition->size <= chain_size(chain) / 2)
                return count_allocated(chain, partition->start, end, ret, reterr);
        rc = count_allocated(chain, 0, partition->start, &before, reterr);
        if (rc >= 0)
                rc = count_allocated(chain, end, chain_size(chain), &behind, reterr);
        if (rc < 0)
                return rc;
        *ret = min_u64(disk_allocated - min_u64(disk_allocated, before + behind), partition->size);
        return 0;
}

static int set_text(json_t *object, const char *key, const char *text) {
        return text ? json_object_set_new(object, key, json_text(text)) : 0;
}

static int describe_filesystem(json_t *object, const Filesystem *filesystem) {
        return set_text(object, "filesystem", filesystem->type) | set_text(object, "label", filesystem->label) |
               set_text(object, "uuid", filesystem->uuid);
}

static json_t *describe(const char *disk, const Partition *partition) {
        char name[512];
        json_t *object;
        int bad;

        partition_name(disk, partition, name, sizeof name);
        object = json_pack("{s:o, s:i, s:I, s:I}", "name", json_text(name), "number", (int) partition->number, "start",
                           (json_int_t) partition->start, "size", (json_int_t) partition->size);
        bad = !object || set_text(object, "table", partition->scheme) | set_text(object, "type", partition->type) |
                                 set_text(object, "partition_label", partition->name) |
                                 set_text(object, "partition_uuid", partition->uuid) |
                                 describe_filesystem(object, &partition->filesystem) |
                                 json_object_set_new(object, "readable", json_boolean(partition->readable)) |
                                 set_text(object, "reason", partition->trouble);
        if (bad) {
                json_decref(object);
                return NULL;
        }
        return object;
}

int partitions_describe(const char *disk, const PartitionTable *table, json_t *object) {
        json_t *list = json_array();
        int bad = set_text(object, "table", table->scheme) | set_text(object, "table_id", table->id) |
                  set_text(object, "table_reason", table->trouble) | describe_filesystem(object, &table->filesystem);

        if (table->scheme)
                bad |= json_object_set_new(object, "sector_size", json_integer(table->sector_size));
        for (size_t i = 0; i < table->count; i++)
                bad |= json_array_append_new(list, describe(disk, &table->partitions[i]));
        bad |= json_object_set_new(object, "partitions", list);
        return bad ? -ENOMEM : 0;
}
