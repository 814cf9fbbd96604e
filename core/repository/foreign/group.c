#include "repository/foreign/group.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "util/cleanup.h"

static int compare_texts(const char *a, const char *b) {
        return strcmp(a ?: "", b ?: "");
}

static int compare_layers(const void *a, const void *b) {
        const FoundLayer *left = *(const FoundLayer *const *) a, *right = *(const FoundLayer *const *) b;
        int order = strcmp(left->point, right->point);

        if (order == 0)
                order = strcmp(left->disk, right->disk);
        if (order == 0)
                order = compare_texts(left->location.path, right->location.path);
        return order ?: compare_texts(left->location.member, right->location.member);
}

static int compare_kept(const void *a, const void *b) {
        const FoundKept *left = *(const FoundKept *const *) a, *right = *(const FoundKept *const *) b;
        int order = strcmp(left->point, right->point);

        if (order == 0)
                order = strcmp(left->name, right->name);
        return order ?: compare_texts(left->location.path, right->location.path);
}

static bool is_later(struct timespec a, struct timespec b) {
        return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec;
}

static int sort_findings(const Findings *findings, Groups *groups) {
        groups->layers = calloc(findings->layer_count + 1, sizeof *groups->layers);
        groups->kept = calloc(findings->kept_count + 1, sizeof *groups->kept);
        groups->points = calloc(findings->layer_count + findings->kept_count + 1, sizeof *groups->points);
        if (!groups->layers || !groups->kept || !groups->points)
                return -ENOMEM;
        for (size_t i = 0; i < findings->layer_count; i++)
                groups->layers[i] = &findings->layers[i];
        for (size_t i = 0; i < findings->kept_count; i++)
                groups->kept[i] = &findings->kept[i];
        qsort(groups->layers, findings->layer_count, sizeof *groups->layers, compare_layers);
        qsort(groups->kept, findings->kept_count, sizeof *groups->kept, compare_kept);
        return 0;
}

/* The parent is that of the first disk that has one, until it is known which are there. */
static void link_and_date(GroupPoint *point) {
        for (size_t i = 0; i < point->layer_count; i++) {
                const FoundLayer *layer = point->layers[i];

                if (!point->parent_key)
                        point->parent_key = layer->parent;
                if (i == 0 || is_later(layer->time, point->time))
                        point->time = layer->time;
        }
        for (size_t i = 0; point->layer_count == 0 && i < point->kept_count; i++)
                if (i == 0 || is_later(point->kept[i]->time, point->time))
                        point->time = point->kept[i]->time;
}

/* Merges the two sorted lists into points. */
static void make_points(const Findings *findings, Groups *groups) {
        size_t layer = 0, kept = 0;

        while (layer < findings->layer_count || kept < findings->kept_count) {
                GroupPoint *point = &groups->points[groups->point_count++];
                size_t first_layer = layer, first_kept = kept;

                if (kept == findings->kept_count ||
                    (layer < findings->layer_count && strcmp(groups->layers[layer]->point, groups->kept[kept]->point) <= 0))
                        point->key = groups->layers[layer]->point;
                else
                        point->key = groups->kept[kept]->point;
                while (layer < findings->layer_count && strcmp(groups->layers[layer]->point, point->key) == 0)
                        layer++;
                while (kept < findings->kept_count && strcmp(groups->kept[kept]->point, point->key) == 0)
                        kept++;
                point->layers = groups->layers + first_layer;
                point->layer_count = layer - first_layer;
                point->kept = groups->kept + first_kept;
                point->kept_count = kept - first_kept;
                point->parent = GROUP_NONE;
                point->depth = GROUP_NONE;
                link_and_date(point);
        }
}

size_t groups_find(const Groups *groups, const char *key) {
        size_t low = 0, high = groups->point_count;

        while (low < high) {
                size_t middle = low + (high - low) / 2;
                int order = strcmp(groups->points[middle].key, key);

                if (order == 0)
                        return middle;
                if (order < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        return GROUP_NONE;
}

#define ON_THE_WAY (GROUP_NONE - 1) /* as a depth: somebody is following its parents */

/* Finds how many ancestors a point has, and what its name will say. Where its parents lead back to one that is on the way,
 * that one's link is cut. */
static void follow(Groups *groups, size_t from, size_t *path) {
        size_t length = 0, at = from;

        while (at != GROUP_NONE && groups->points[at].depth == GROUP_NONE) {
                groups->points[at].depth = ON_THE_WAY;
                path[length++] = at;
                at = groups->points[at].parent;
        }
        if (at != GROUP_NONE && groups->points[at].depth == ON_THE_WAY) {
                /* All of the loop are lost: from here back to the one that was met again. */
                for (size_t i = length; i-- > 0;) {
                        groups->points[path[i]].loops = true;
                        groups->points[path[i]].parent = GROUP_NONE;
                        if (path[i] == at)
                                break;
                }
        }
        while (length > 0) {
                GroupPoint *point = &groups->points[path[--length]];
                const GroupPoint *parent = point->parent == GROUP_NONE ? NULL : &groups->points[point->parent];

                point->depth = parent ? parent->depth + 1 : 0;
                point->shown = parent && is_later(parent->shown, point->time) ? parent->shown : point->time;
        }
}

/* Of several that disks continue: the latest that is there. */
static void choose_parent(const Groups *groups, GroupPoint *point) {
        for (size_t i = 0; i < point->layer_count; i++) {
                const char *key = point->layers[i]->parent;
                size_t found = key ? groups_find(groups, key) : GROUP_NONE;

                if (found == GROUP_NONE ||
                    (point->parent != GROUP_NONE &&
                     !is_later(groups->points[found].time, groups->points[point->parent].time)))
                        continue;
                point->parent_key = key;
                point->parent = found;
        }
}

static int link_parents(Groups *groups) {
        CLEANUP(freep) size_t *path = calloc(groups->point_count + 1, sizeof *path);

        if (!path)
                return -ENOMEM;
        for (size_t i = 0; i < groups->point_count; i++)
                choose_parent(groups, &groups->points[i]);
        for (size_t i = 0; i < groups->point_count; i++)
                follow(groups, i, path);
        return 0;
}

/* Points that hang together: each has a representative among them, the first. */
typedef struct Union {
        const Groups *groups;
        size_t *of;
        const char **names; /* of the VM, as each point tells; or NULL */
        const char **uuids; /* the same; of representatives: what any of theirs tells */
        bool *named;        /* of representatives: a point of theirs tells a name */
} Union;

static size_t find(const Union *sets, size_t index) {
        while (sets->of[index] != index) {
                sets->of[index] = sets->of[sets->of[index]];
                index = sets->of[index];
        }
        return index;
}

static void join(const Union *sets, size_t a, size_t b) {
        size_t first = find(sets, a), second = find(sets, b);

        if (first == second)
                return;
        if (second < first) {
                size_t swapped = first;

                first = second;
                second = swapped;
        }
        sets->of[second] = first;
        sets->uuids[first] = sets->uuids[first] ?: sets->uuids[second];
        sets->named[first] |= sets->named[second];
}

/* Where the point was found, to *ret_length. */
static const char *directory_of(const GroupPoint *point, size_t *ret_length) {
        const char *path, *slash;

        if (point->layer_count > 0) {
                *ret_length = strlen(point->layers[0]->directory);
                return point->layers[0]->directory;
        }
        path = point->kept[0]->location.path;
        slash = strrchr(path, '/');
        *ret_length = slash ? (size_t) (slash - path) : 0;
        return path;
}

static int compare_directories(const Union *sets, size_t a, size_t b) {
        size_t left_length, right_length;
        const char *left = directory_of(&sets->groups->points[a], &left_length);
        const char *right = directory_of(&sets->groups->points[b], &right_length);
        int order = memcmp(left, right, left_length < right_length ? left_length : right_length);

        return order ?: (left_length > right_length) - (left_length < right_length);
}

static const char *uuid_of(const Union *sets, size_t index) {
        return sets->uuids[find(sets, index)];
}

static int compare_members(const void *a, const void *b, void *context) {
        const Union *sets = context;
        size_t left = *(const size_t *) a, right = *(const size_t *) b;
        int order = compare_texts(sets->names[left], sets->names[right]);

        if (order == 0)
                order = strcasecmp(uuid_of(sets, left) ?: "", uuid_of(sets, right) ?: "");
        if (order == 0)
                order = compare_directories(sets, left, right);
        return order ?: (left > right) - (left < right);
}

static bool is_same_uuid(const char *a, const char *b) {
        return a && b && strcasecmp(a, b) == 0;
}

static int compare_uuids(const void *a, const void *b, void *context) {
        const Union *sets = context;
        size_t left = *(const size_t *) a, right = *(const size_t *) b;
        int order = strcasecmp(sets->uuids[left] ?: "", sets->uuids[right] ?: "");

        return order ?: (left > right) - (left < right);
}

static void join_same_uuids(Union *sets, size_t *list) {
        size_t count = sets->groups->point_count;

        for (size_t i = 0; i < count; i++)
                list[i] = i;
        qsort_r(list, count, sizeof *list, compare_uuids, sets);
        for (size_t i = 1; i < count; i++)
                if (is_same_uuid(sets->uuids[list[i - 1]], sets->uuids[list[i]]))
                        join(sets, list[i - 1], list[i]);
}

/* The run of one name that begins at list[first], or of those without a name: all are one VM, unless several have UUIDs;
 * then, and without a name, those of one directory that have none are. The run's end. */
static size_t join_run(const Union *sets, const size_t *list, size_t first, size_t count) {
        const char *name = sets->names[list[first]];
        size_t end = first + 1, uuids = uuid_of(sets, list[first]) != NULL;

        for (; end < count && compare_texts(sets->names[list[end]], name) == 0; end++)
                uuids += uuid_of(sets, list[end]) && !is_same_uuid(uuid_of(sets, list[end - 1]), uuid_of(sets, list[end]));
        for (size_t i = first + 1; i < end; i++) {
                bool same_place = !uuid_of(sets, list[i]) && !uuid_of(sets, list[i - 1]) &&
                                  compare_directories(sets, list[i - 1], list[i]) == 0;

                if ((name && uuids <= 1) || same_place)
                        join(sets, list[i - 1], list[i]);
        }
        return end;
}

/* What tells no name, in points that hang together with one that does, has that. */
static void join_same_names(Union *sets, size_t *list) {
        size_t count = 0;

        for (size_t i = 0; i < sets->groups->point_count; i++)
                if (sets->names[i] || (find(sets, i) == i && !sets->named[i]))
                        list[count++] = i;
        qsort_r(list, count, sizeof *list, compare_members, sets);
        for (size_t i = 0; i < count;)
                i = join_run(sets, list, i, count);
}

/* Takes the representatives as the VMs. One that was renamed is called as in its newest point. */
static int list_vms(Groups *groups, const Union *sets) {
        CLEANUP(freep) size_t *newest = calloc(groups->point_count + 1, sizeof *newest);

        groups->vms = calloc(groups->point_count + 1, sizeof *groups->vms);
        if (!groups->vms || !newest)
                return -ENOMEM;
        for (size_t i = 0; i < groups->point_count; i++) {
                size_t length;
                const char *directory = directory_of(&groups->points[i], &length);
                size_t first = find(sets, i), vm = groups->vm_count;

                if (first != i) /* who comes before it */
                        vm = groups->points[first].vm;
                else {
                        groups->vms[vm] = (GroupVm) {
                                .uuid = sets->uuids[i], .directory = strndup(directory, length),
                        };
                        groups->vm_count++;
                        if (!groups->vms[vm].directory)
                                return -ENOMEM;
                }
                groups->points[i].vm = vm;
                if (sets->names[i] && (!groups->vms[vm].name ||
                                       is_later(groups->points[i].time, groups->points[newest[vm]].time))) {
                        groups->vms[vm].name = sets->names[i];
                        newest[vm] = i;
                }
        }
        return 0;
}

static void tell_vm(const GroupPoint *point, const char **ret_name, const char **ret_uuid) {
        for (size_t i = 0; i < point->layer_count; i++) {
                *ret_name = *ret_name ?: point->layers[i]->vm;
                *ret_uuid = *ret_uuid ?: point->layers[i]->vm_uuid;
        }
}

static void join_parents(const Union *sets) {
        for (size_t i = 0; i < sets->groups->point_count; i++) {
                const GroupPoint *point = &sets->groups->points[i];

                for (size_t j = 0; j < point->layer_count; j++) {
                        const char *key = point->layers[j]->parent;
                        size_t parent = key ? groups_find(sets->groups, key) : GROUP_NONE;

                        if (parent != GROUP_NONE)
                                join(sets, parent, i);
                }
        }
}

static int make_vms(Groups *groups) {
        size_t room = groups->point_count + 1;
        CLEANUP(freep) size_t *of = calloc(room, sizeof *of);
        CLEANUP(freep) size_t *list = calloc(room, sizeof *list);
        CLEANUP(freep) const char **names = calloc(room, sizeof *names);
        CLEANUP(freep) const char **uuids = calloc(room, sizeof *uuids);
        CLEANUP(freep) bool *named = calloc(room, sizeof *named);
        Union sets = { groups, of, names, uuids, named };

        if (!of || !list || !names || !uuids || !named)
                return -ENOMEM;
        for (size_t i = 0; i < groups->point_count; i++) {
                of[i] = i;
                tell_vm(&groups->points[i], &names[i], &uuids[i]);
                named[i] = names[i] != NULL;
        }
        join_parents(&sets);
        join_same_uuids(&sets, list);
        join_same_names(&sets, list);
        return list_vms(groups, &sets);
}

int groups_make(const Findings *findings, Groups *ret) {
        CLEANUP(groups_clear) Groups groups = { 0 };

        if (sort_findings(findings, &groups) < 0)
                return -ENOMEM;
        make_points(findings, &groups);
        if (link_parents(&groups) < 0 || make_vms(&groups) < 0)
                return -ENOMEM;
        *ret = groups;
        groups = (Groups) { 0 };
        return 0;
}

void groups_clear(Groups *groups) {
        for (size_t i = 0; i < groups->vm_count; i++)
                free(groups->vms[i].directory);
        free(groups->vms);
        free(groups->points);
        free(groups->kept);
        free(groups->layers);
        *groups = (Groups) { 0 };
}
