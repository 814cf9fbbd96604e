#include "partitions/partitions.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "partitions/volumes.h"
#include "util/json.h"

#define KIND_PARTITIONS 1 /* of what is made of a chain; see volumes.c */

typedef struct Request {
        Vm *vm;
        const char *point, *disk;
        Chain *chain;
} Request;

static int load(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        const Request *request = context;
        CLEANUP(partition_table_unrefp) PartitionTable *table = NULL;
        DiskBytes disk = disk_bytes_of_chain(request->chain);
        int rc = partition_table_read(&disk, &table, reterr);

        if (rc >= 0)
                rc = volumes_add(request->vm, request->point, request->disk, request->chain, table, reterr);
        if (rc < 0)
                return rc;
        *ret_cost = sizeof *table;
        for (size_t i = 0; i < table->count; i++)
                *ret_cost += sizeof *table->partitions + 300 + table->partitions[i].piece_count * 100;
        *ret = STEAL_PTR(table);
        return 0;
}

static void release(void *table) {
        partition_table_unref(table);
}

int partitions_find(Vm *vm, const char *point, const char *disk, PartitionTable **ret, Reason *reterr) {
        static const CacheLoader loader = { load, release };
        CLEANUP(chain_unrefp) Chain *chain = NULL;
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        Request request = { vm, point, disk, NULL };
        int rc = chain_open(vm, point, disk, &chain, reterr);

        request.chain = chain;
        if (rc >= 0)
                rc = chain_get_made(chain, KIND_PARTITIONS, &loader, &request, &entry, reterr);
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

static int set_text(json_t *object, const char *key, const char *text) {
        return text ? json_object_set_new(object, key, json_text(text)) : 0;
}

static int describe_filesystem(json_t *object, const Filesystem *filesystem) {
        return set_text(object, "filesystem", filesystem->type) | set_text(object, "label", filesystem->label) |
               set_text(object, "uuid", filesystem->uuid);
}

/* {"size": 4194304, "places": [{"disk": "vda", "start": 1048576}]}, and "stripe_size" where there are several. */
static json_t *describe_piece(const Partition *volume, const ViewPiece *piece) {
        json_t *places = json_array(), *object = json_pack("{s:I}", "size", (json_int_t) piece->size);
        int bad = 0;

        for (size_t i = 0; i < piece->place_count; i++) {
                const ViewPlace *place = &piece->places[i];

                bad |= json_array_append_new(places, json_pack("{s:o, s:I}", "disk",
                                                               json_text(volume->disks.items[place->disk]), "start",
                                                               (json_int_t) place->start));
        }
        if (piece->place_count > 1)
                bad |= json_object_set_new(object, "stripe_size", json_integer((json_int_t) piece->stripe_size));
        bad |= json_object_set_new(object, "places", places);
        if (bad) {
                json_decref(object);
                return NULL;
        }
        return object;
}

static int describe_pieces(json_t *object, const Partition *volume) {
        json_t *list = json_array();
        int bad = 0;

        for (size_t i = 0; i < volume->piece_count; i++)
                bad |= json_array_append_new(list, describe_piece(volume, &volume->pieces[i]));
        return bad | json_object_set_new(object, "pieces", list);
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
        if (!bad && partition->pieces)
                bad = describe_pieces(object, partition);
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
