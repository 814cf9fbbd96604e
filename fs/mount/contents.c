#include "mount/contents.h"

#include <errno.h>
#include <string.h>

#include "chain/allocation.h"
#include "chain/chain-diff.h"
#include "chain/chain-map.h"
#include "partitions/point-image.h"
#include "repository/point.h"

static int make_map(const Item *item, char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(chain_view_freep) ChainView *view = NULL;
        int rc = point_image_open_disk(item->vm->vm, item->point->name, item_disk(item)->name, &view, reterr);

        return rc < 0 ? rc : chain_map_text(view, ret, ret_length, reterr);
}

static int print_change(void *context, const ChainExtent *extent, bool absent) {
        chain_printer_text.print(context, extent, absent, false);
        return 0;
}

/* What was stored of the disk since the parent point: all of it where that had no such disk. Nothing is read for it, so that
 * it takes as long as the map. */
static int make_changes(const Item *item, char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(chain_view_freep) ChainView *view = NULL;
        CLEANUP(chain_view_freep) ChainView *parent = NULL;
        CLEANUP(freep) char *text = NULL;
        const char *disk = item_disk(item)->name;
        ChainDiff diff = { .maps_only = true, .see = print_change };
        size_t length;
        FILE *f;
        int rc;

        rc = point_image_open_disk(item->vm->vm, item->point->name, disk, &view, reterr);
        if (rc >= 0)
                rc = point_image_open_disk(item->vm->vm, item->point->manifest->parent, disk, &parent, reterr);
        if (rc < 0 && !(view && rc == -ENOENT))
                return rc;
        f = open_memstream(&text, &length);
        if (!f)
                return fail_oom(reterr);
        diff.after = view;
        diff.before = parent;
        diff.context = f;
        fputs(chain_printer_text.head, f);
        rc = chain_diff(&diff, NULL);
        if (fclose(f) != 0 || rc < 0)
                return fail_oom(reterr);
        *ret = STEAL_PTR(text);
        *ret_length = length;
        return 0;
}

/* The partitions of each disk of the point, or why they are not known. */
static int add_partitions(const Item *item, json_t *disks, Reason *reterr) {
        json_t *disk;
        size_t i;

        json_array_foreach(disks, i, disk) {
                CLEANUP(partition_table_unrefp) PartitionTable *table = NULL;
                const char *name = item->point->manifest->disks[i].name;
                Reason reason = REASON_INIT;
                /* It tells how far the unpacking is, and is not to come when that is over. */
                unsigned patience_ms = json_object_get(disk, "unpacking") ? 0 : TREE_PARTITIONS_WAIT;
                int rc = tree_find_partitions(item, name, patience_ms, &table, &reason);

                rc = rc < 0 ? json_object_set_new(disk, "table_reason", json_text(reason.text))
                            : partitions_describe(name, table, disk);
                if (rc < 0)
                        return fail_oom(reterr);
        }
        return 0;
}

int contents_info(Tree *tree, const Item *item, char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *info = NULL;
        CLEANUP(freep) char *problem = NULL;
        int rc;

        if (item->point->manifest)
                allocation_find_all(item->vm->vm, item->point->manifest);
        rc = completeness_problem(tree->completeness, item->vm, item->point->name, &problem, reterr);
        if (rc >= 0)
                rc = point_info(item->vm->vm, item->point->name, item->point->manifest, problem, &info, reterr);
        if (rc >= 0)
                rc = add_partitions(item, json_object_get(info, "disks"), reterr);
        if (rc < 0)
                return rc;
        *ret = json_dumps(info, JSON_INDENT(4));
        if (!*ret)
                return fail_oom(reterr);
        *ret_length = strlen(*ret);
        (*ret)[(*ret_length)++] = '\n'; /* in the place of the NUL: the length counts */
        return 0;
}

static int make(Tree *tree, const Item *item, char **ret, size_t *ret_length, Reason *reterr) {
        switch (item->node.kind) {
        case NODE_INFO:
                return contents_info(tree, item, ret, ret_length, reterr);
        case NODE_MAP:
                return make_map(item, ret, ret_length, reterr);
        case NODE_CHANGES:
                return make_changes(item, ret, ret_length, reterr);
        default:
                return fail(reterr, -EINVAL, "no such contents");
        }
}

int contents_make(Tree *tree, const Item *item, char **ret, size_t *ret_length) {
        Reason reason = REASON_INIT;
        int rc = make(tree, item, ret, ret_length, &reason);

        return rc < 0 ? item_log_failure(item, rc, &reason) : rc;
}
