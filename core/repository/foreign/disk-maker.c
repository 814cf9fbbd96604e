#include "repository/foreign/disk-maker.h"

#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "repository/foreign/names.h"
#include "util/bytes.h"

#define FOLDED_MAX 1000 /* layers of one disk that are taken together */

static PointKind kind_of(FoundKind kind) {
        switch (kind) {
        case FOUND_INCREMENTAL:
                return POINT_INCREMENTAL;
        case FOUND_DIFFERENTIAL:
                return POINT_DIFFERENTIAL;
        default:
                return POINT_FULL;
        }
}

static int copy(const char *text, char **ret) {
        *ret = text ? strdup(text) : NULL;
        return text && !*ret ? -ENOMEM : 0;
}

__attribute__((format(printf, 2, 3))) static int set_problem(ManifestDisk *disk, const char *format, ...) {
        va_list args;
        int length;

        if (disk->problem)
                return 0;
        va_start(args, format);
        length = vasprintf(&disk->problem, format, args);
        va_end(args);
        if (length < 0)
                disk->problem = NULL;
        return length < 0 ? -ENOMEM : 0;
}

/* What two layers hold together; 0 where that is not known of both. */
static uint64_t add_data(uint64_t a, uint64_t b) {
        return a == 0 || b == 0 ? 0 : min_u64(min_u64(a, INT64_MAX) + min_u64(b, INT64_MAX), INT64_MAX);
}

static int add_layer(ManifestDisk *disk, const FoundLayer *found) {
        ManifestLayer *layer = reallocarray(disk->layers, disk->layer_count + 1, sizeof *layer);

        if (!layer)
                return -ENOMEM;
        disk->layers = layer;
        disk->data = disk->layer_count == 0 ? found->data : add_data(disk->data, found->data);
        layer += disk->layer_count++;
        *layer = (ManifestLayer) { 0 };
        layer->length = found->location.length;
        layer->seal = found->location.seal;
        if (copy(found->location.format, &layer->format) < 0 || copy(found->location.path, &layer->file) < 0)
                return -ENOMEM;
        return copy(found->location.member, &layer->member);
}

/* What can be said against a layer from what is known of its point alone. */
static int judge_layer(const FoundLayer *found, ManifestDisk *disk) {
        if (found->problem)
                return set_problem(disk, "%s", found->problem);
        if (found->size > INT64_MAX)
                return set_problem(disk, "its size is too great");
        return 0;
}

/* The one layer of a disk at a point. NULL where there is none, or two. */
static const FoundLayer *find_layer(const GroupPoint *point, const char *disk) {
        const FoundLayer *found = NULL;

        for (size_t i = 0; i < point->layer_count; i++) {
                if (strcmp(point->layers[i]->disk, disk) != 0)
                        continue;
                if (found)
                        return NULL;
                found = point->layers[i];
        }
        return found;
}

/* A disk that continues another backup than the other disks of its point gets the layers of all its ancestors, down to a
 * full one: its own chain, in one point. */
static int fold(const Groups *groups, const FoundLayer *found, ManifestDisk *disk) {
        const FoundLayer *layer = found;

        while (layer->kind != FOUND_FULL) {
                size_t index = layer->parent ? groups_find(groups, layer->parent) : GROUP_NONE;

                if (index == GROUP_NONE)
                        return set_problem(disk, "the backup that it continues (%s) is not there", layer->parent ?: "?");
                if (disk->layer_count == FOLDED_MAX)
                        return set_problem(disk,
                                           "it continues another backup (%s) than the point's other disks, of too many",
                                           found->parent);
                layer = find_layer(&groups->points[index], found->disk);
                if (!layer || layer->problem)
                        return set_problem(disk, "the backup that it continues (%s): %s", groups->points[index].key,
                                           layer ? layer->problem : "it has not one layer of this disk");
                if (layer->size != found->size)
                        return set_problem(disk, "the backup that it continues (%s) is of another size, and not that of the "
                                           "point's other disks", groups->points[index].key);
                if (add_layer(disk, layer) < 0)
                        return -ENOMEM;
        }
        disk->kind = POINT_FULL;
        return copy("it continues another backup than the point's other disks: here are all layers that it rests on",
                    &disk->why);
}

/* And against its place in the chain: what it holds itself can be read. */
static int judge_link(const Groups *groups, const GroupPoint *point, const FoundLayer *found, ManifestDisk *disk) {
        if (found->kind == FOUND_FULL)
                return 0;
        if (!found->parent)
                return set_problem(disk, "it is not known which backup it continues");
        if (point->loops)
                return set_problem(disk, "its ancestors lead back to itself");
        if (strcmp(found->parent, point->parent_key) != 0)
                return fold(groups, found, disk);
        if (point->parent == GROUP_NONE)
                return set_problem(disk, "the backup that it continues (%s) is not there", found->parent);
        return 0;
}

int disk_make(const Groups *groups, const GroupPoint *point, const FoundLayer *found, ManifestDisk *disk) {
        int rc;

        disk->name = name_clean(found->disk, DISK_NAME_MAX);
        disk->kind = kind_of(found->kind);
        disk->size = min_u64(found->size, INT64_MAX);
        disk->allocated = ALLOCATED_UNKNOWN;
        disk->has_stored = true;
        disk->stored = min_u64(found->stored, INT64_MAX);
        if (!disk->name || copy(found->note, &disk->note) < 0)
                return -ENOMEM;
        rc = judge_layer(found, disk);
        if (rc < 0 || disk->problem)
                return rc;
        rc = add_layer(disk, found);
        return rc < 0 ? rc : judge_link(groups, point, found, disk);
}

void disk_rest_on(ManifestDisk *disk, const Manifest *parent) {
        const ManifestDisk *before = parent ? manifest_find_disk(parent, disk->name) : NULL;

        if (disk->kind != POINT_FULL)
                disk->data = add_data(disk->data, before ? before->data : 0);
        if (disk->problem) /* what is lost counts as data */
                disk->data = 0;
}

static void drop_layers(ManifestDisk *disk) {
        for (size_t i = 0; i < disk->layer_count; i++) {
                free(disk->layers[i].format);
                free(disk->layers[i].file);
                free(disk->layers[i].member);
        }
        free(disk->layers);
        disk->layers = NULL;
        disk->layer_count = 0;
}

int disk_refuse_double(ManifestDisk *disk, const FoundLayer *first, const FoundLayer *second) {
        drop_layers(disk);
        free(disk->problem);
        disk->problem = NULL;
        if (strcmp(first->location.path, second->location.path) == 0)
                return set_problem(disk, "%s holds it twice", first->location.path);
        return set_problem(disk, "two files hold it: %s and %s", first->location.path, second->location.path);
}
