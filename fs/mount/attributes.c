#include "mount/attributes.h"

#include <errno.h>
#include <string.h>

#include "chain/allocation.h"
#include "codec/checksum.h"
#include "mount/contents.h"
#include "util/bytes.h"
#include "util/timestamp.h"

#define FOREVER 86400.0
/* A point does not change, but it can be removed; and what is said of it can become worse. */
#define A_MOMENT 1.0

/* Every path leads through the root and a VM, which are asked about each time: by a walk over thousands of points thousands
 * of times. */
#define RUSH 64 /* questions within a window */
#define RUSH_WINDOW_MS 100
#define RUSH_LIFETIME 0.5

#define RAW_BLKSIZE (1u << 20) /* what is good to read at once: as much as a request carries. cp and cat ask for that */

static struct timespec moment_of_point(const Point *point) {
        struct timespec moment = { 0 };

        if (point->manifest)
                return point->manifest->time;
        (void) point_name_time(point->name, &moment.tv_sec);
        return moment;
}

static int set_info_size(Tree *tree, struct stat *st, const Item *item) {
        CLEANUP(freep) char *text = NULL;
        size_t length;
        int rc;

        rc = contents_info(tree, item, &text, &length, NULL);
        if (rc < 0)
                return rc;
        st->st_size = (off_t) length;
        return 0;
}

/* What is not known and cannot be found out is as if there were no holes. */
static uint64_t allocated(const Item *item) {
        uint64_t found = item_disk(item)->size;

        (void) allocation_find(item->vm->vm, item->point->manifest, item_disk(item), &found, NULL);
        return found;
}

static int set_partition_blocks(struct stat *st, const Item *item) {
        uint64_t blocks;
        int rc = point_image_allocated(item->vm->vm, item->point->name, item_disk(item), item_partition(item),
                                       allocated(item),
                                       &blocks, NULL);

        if (rc < 0)
                return rc;
        st->st_blocks = (blkcnt_t) divide_up(blocks, 512);
        return 0;
}

/* The trigger is the owner's to write, whatever the umask is. */
static mode_t mode_of(NodeKind kind, mode_t mask) {
        switch (node_type(kind)) {
        case S_IFDIR:
                return S_IFDIR | (0555 & ~mask);
        case S_IFLNK:
                return S_IFLNK | 0777;
        default:
                return S_IFREG | ((kind == NODE_TRIGGER ? 0644 : 0444) & ~mask);
        }
}

int attributes_get(Tree *tree, const Item *item, struct stat *ret) {
        const MountOptions *options = tree->options;
        struct stat st = {
                .st_ino = node_number(item->node),
                .st_mode = mode_of(item->node.kind, options->umask),
                .st_nlink = 1, /* for a directory: not counted */
                .st_uid = options->uid,
                .st_gid = options->gid,
                .st_blksize = 4096,
        };
        char latest[POINT_NAME_MAX];
        struct timespec moment = { 0 };
        int rc = 0;

        if (item->point)
                moment = moment_of_point(item->point);
        switch (item->node.kind) {
        case NODE_ROOT:
                rc = repository_changed(tree->repository, &moment);
                break;
        case NODE_VM:
                rc = vm_changed(item->vm->vm, &moment);
                break;
        case NODE_TRIGGER:
                rc = vm_state_changed(item->vm->vm, &moment);
                break;
        case NODE_LATEST:
                rc = vm_changed(item->vm->vm, &moment);
                if (rc == 0)
                        rc = tree_link(item, latest);
                if (rc == 0)
                        st.st_size = (off_t) strlen(latest);
                break;
        case NODE_INFO:
                rc = set_info_size(tree, &st, item);
                break;
        case NODE_KEPT:
                st.st_size = (off_t) item_kept(item)->length;
                break;
        case NODE_RAW:
                st.st_size = (off_t) item_disk(item)->size;
                st.st_blocks = (blkcnt_t) divide_up(allocation_is_bound(item_disk(item)) ? allocation_bound(item_disk(item))
                                                                                         : allocated(item), 512);
                st.st_blksize = RAW_BLKSIZE;
                break;
        case NODE_PARTITION:
                st.st_size = (off_t) item_partition(item)->size;
                st.st_blksize = RAW_BLKSIZE;
                rc = set_partition_blocks(&st, item);
                break;
        case NODE_POINT:
        case NODE_MAP:
        case NODE_CHANGES:
                break;
        }
        if (item->node.kind == NODE_INFO || item->node.kind == NODE_KEPT)
                st.st_blocks = (blkcnt_t) divide_up((uint64_t) st.st_size, 512);
        if (rc < 0)
                return rc == -ENOENT ? -ESTALE : rc;
        st.st_mtim = st.st_ctim = st.st_atim = moment;
        *ret = st;
        return 0;
}

/* Whether what is not cached is asked for so often that it has to be. */
static double rush_lifetime(Rush *rush) {
        struct timespec now = timestamp_now();
        uint64_t window = ((uint64_t) now.tv_sec * 1000 + (uint64_t) now.tv_nsec / 1000000) / RUSH_WINDOW_MS;

        if (atomic_exchange_explicit(&rush->window, window, memory_order_relaxed) != window)
                atomic_store_explicit(&rush->count, 0, memory_order_relaxed);
        return atomic_fetch_add_explicit(&rush->count, 1, memory_order_relaxed) >= RUSH ? RUSH_LIFETIME : 0;
}

double attributes_lifetime(Tree *tree, const Item *item) {
        switch (item->node.kind) {
        case NODE_ROOT:
        case NODE_VM:
                return rush_lifetime(&tree->rush);
        case NODE_TRIGGER:
        case NODE_LATEST:
                return 0;
        case NODE_INFO:
                return A_MOMENT;
        case NODE_RAW:
        case NODE_PARTITION: /* until it is known what they take */
                return manifest_disk_allocated(item_disk(item)) == ALLOCATED_UNKNOWN ? A_MOMENT : FOREVER;
        default:
                return item->point->manifest ? FOREVER : 0;
        }
}

double attributes_entry_lifetime(Tree *tree, const Item *item) {
        if (!item->point)
                return attributes_lifetime(tree, item);
        if (!item->point->manifest)
                return 0;
        return item->node.kind == NODE_POINT ? A_MOMENT : FOREVER;
}

/* The serial of a point that was removed may be given to the next one; their captures differ. */
uint64_t attributes_generation(const Item *item) {
        const Manifest *manifest = item->point ? item->point->manifest : NULL;

        return manifest ? (uint32_t) checksum(manifest->capture, strlen(manifest->capture)) : 0;
}
