/* fs/commands/list.c - shows what a repository holds: VMs, the points of a VM, the disks of a point. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "chain/allocation.h"
#include "command-line/command.h"
#include "command-line/path.h"
#include "command-line/table.h"

enum { VM_COLUMNS = 5, POINT_COLUMNS = 6, DISK_COLUMNS = 6 };

static const CommandOption options[] = {
        { .name = "json", .help = "an object {\"vms\": [...]} with exact sizes" },
        { 0 },
};

static const char *text_of(const json_t *object, const char *key) {
        return json_string_value(json_object_get(object, key)) ?: "-";
}

/* Sizes that only a look at all layers could tell are null. */
static int add_size(Table *table, const json_t *object, const char *key) {
        const json_t *size = json_object_get(object, key);

        if (!json_is_integer(size))
                return table_add_right(table, "-");
        return table_add_size(table, (uint64_t) json_integer_value(size));
}

static uint64_t size_of(const json_t *object, const char *key) {
        return (uint64_t) json_integer_value(json_object_get(object, key));
}

/* One row for each VM. */
static int add_vms(Table *table, const json_t *vms) {
        const char *const head[VM_COLUMNS] = { "VM", "POINTS", "STORED", "NEWEST", "SOURCE" };
        const json_t *vm, *point;
        size_t i, j;
        int bad = 0;

        for (i = 0; i < sizeof head / sizeof *head; i++)
                bad |= table_add(table, head[i]);
        json_array_foreach(vms, i, vm) {
                const json_t *points = json_object_get(vm, "points");
                const json_t *newest = json_array_get(points, json_array_size(points) - 1);
                size_t incomplete = 0;
                uint64_t stored = 0;
                char count[64];
                int length;

                json_array_foreach(points, j, point) {
                        stored += size_of(point, "stored");
                        incomplete += json_is_false(json_object_get(point, "complete"));
                }
                length = snprintf(count, sizeof count, "%zu", json_array_size(points));
                if (incomplete > 0)
                        snprintf(count + length, sizeof count - (size_t) length, " (%zu incomplete)", incomplete);
                bad |= table_add(table, text_of(vm, "name"));
                bad |= table_add_right(table, count);
                bad |= table_add_size(table, stored);
                bad |= table_add(table, newest ? text_of(newest, "name") : "-");
                bad |= table_add(table, json_object_get(vm, "reason") ? text_of(vm, "reason") : text_of(vm, "source"));
        }
        return bad;
}

/* What the note of a point or a disk is made of; the first that there is. */
typedef struct Notes {
        const char *reason;  /* why it is incomplete */
        uint64_t unreadable; /* bytes of those given */
        const char *backing; /* what has others */
        const json_t *unpacking;
        const char *note;    /* what a format says of a disk */
} Notes;

static void note_disk(Notes *notes, const json_t *disk) {
        notes->unreadable += size_of(disk, "unreadable");
        notes->backing = json_string_value(json_object_get(disk, "backing")) ?: notes->backing;
        notes->unpacking = json_object_get(disk, "unpacking") ?: notes->unpacking;
}

static int add_notes(Table *table, const Notes *notes) {
        char size[SIZE_TEXT_MAX], note[REASON_MAX + 64] = "-";
        const char *backing = notes->backing;

        size_format(notes->unreadable, size);
        if (notes->reason)
                snprintf(note, sizeof note, "incomplete: %s", notes->reason);
        else if (notes->unpacking)
                snprintf(note, sizeof note, "being unpacked: %.0f %%",
                         100.0 * (double) size_of(notes->unpacking, "done") / (double) size_of(notes->unpacking, "total"));
        else if (notes->unreadable > 0 && backing)
                snprintf(note, sizeof note, "%s unreadable, needs %s", size, backing);
        else if (notes->unreadable > 0)
                snprintf(note, sizeof note, "%s unreadable", size);
        else if (backing)
                snprintf(note, sizeof note, "needs %s", backing);
        else if (notes->note)
                snprintf(note, sizeof note, "%s", notes->note);
        return table_add(table, note);
}

static int add_point_note(Table *table, const json_t *point) {
        const json_t *disk;
        Notes notes = { .reason = json_string_value(json_object_get(point, "reason")) };
        size_t i;

        json_array_foreach(json_object_get(point, "disks"), i, disk)
                note_disk(&notes, disk);
        if (notes.backing)
                notes.backing = "backing files";
        return add_notes(table, &notes);
}

/* One row for each point of a VM. */
static int add_points(Table *table, const json_t *points) {
        const char *const head[POINT_COLUMNS] = { "POINT", "KIND", "TIME", "STORED", "PARENT", "NOTE" };
        const json_t *point;
        size_t i;
        int bad = 0;

        for (i = 0; i < sizeof head / sizeof *head; i++)
                bad |= table_add(table, head[i]);
        json_array_foreach(points, i, point) {
                bad |= table_add(table, text_of(point, "name"));
                bad |= table_add(table, text_of(point, "kind"));
                bad |= table_add(table, text_of(point, "time"));
                bad |= table_add_size(table, size_of(point, "stored"));
                bad |= table_add(table, text_of(point, "parent"));
                bad |= add_point_note(table, point);
        }
        return bad;
}

/* One row for each disk of a point. */
static int add_disks(Table *table, const json_t *disks, const char *only) {
        const char *const head[DISK_COLUMNS] = { "DISK", "KIND", "SIZE", "ALLOCATED", "STORED", "NOTE" };
        const json_t *disk;
        size_t i;
        int bad = 0;

        for (i = 0; i < sizeof head / sizeof *head; i++)
                bad |= table_add(table, head[i]);
        json_array_foreach(disks, i, disk) {
                Notes notes = {
                        .reason = json_string_value(json_object_get(disk, "reason")),
                        .note = json_string_value(json_object_get(disk, "note")),
                };

                if (only && strcmp(text_of(disk, "name"), only) != 0)
                        continue;
                bad |= table_add(table, text_of(disk, "name"));
                bad |= table_add(table, text_of(disk, "kind"));
                bad |= table_add_size(table, size_of(disk, "size"));
                bad |= add_size(table, disk, "allocated");
                bad |= table_add_size(table, size_of(disk, "stored"));
                note_disk(&notes, disk);
                bad |= add_notes(table, &notes);
        }
        return bad;
}

/* A VM that cannot be looked into is listed with the reason, beside the others. */
static int describe_vm(Repository *repository, const char *name, json_t **ret, Reason *reterr) {
        CLEANUP(vm_freep) Vm *vm = NULL;
        Reason reason = REASON_INIT;
        int rc = vm_open(repository, name, &vm, &reason);

        if (rc == 0)
                rc = vm_describe(vm, NULL, ret, &reason);
        if (rc == -ENOENT || rc == -ENOMEM)
                return fail(reterr, rc, "%s", reason.text);
        if (rc < 0)
                *ret = json_pack("{s:o, s:o, s:o, s:o, s:[]}", "name", json_text(name), "uuid",
                                 vm && *vm_uuid(vm) ? json_text(vm_uuid(vm)) : json_null(), "source",
                                 vm ? vm_describe_source(vm) : json_null(), "reason", json_text(reason.text), "points");
        return *ret ? 0 : fail_oom(reterr);
}

static int describe_all(Repository *repository, json_t *vms, Reason *reterr) {
        CLEANUP(strings_free) Strings names = { 0 };
        int rc = repository_list_vms(repository, &names, reterr);

        for (size_t i = 0; rc >= 0 && i < names.count; i++) {
                json_t *described = NULL;

                rc = describe_vm(repository, names.items[i], &described, reterr);
                if (rc == -ENOENT) /* gone since the listing */
                        rc = 0;
                else if (rc == 0 && json_array_append_new(vms, described) < 0)
                        rc = fail_oom(reterr);
        }
        return rc;
}

/* Lines for what could not be used. */
static int format_unrecognised(const json_t *list, char **ret, size_t *ret_length) {
        CLEANUP(table_freep) Table *table = NULL;
        const json_t *item;
        size_t i;
        int bad = table_new(2, &table);

        if (bad)
                return bad;
        bad |= table_add(table, "NOT RECOGNISED");
        bad |= table_add(table, "REASON");
        json_array_foreach(list, i, item) {
                bad |= table_add(table, text_of(item, "path"));
                bad |= table_add(table, text_of(item, "reason"));
        }
        return bad ? -ENOMEM : table_format(table, ret, ret_length);
}

/* Leaves nothing of a point's disks but the one that the path names. */
static int keep_disk(json_t *point, const char *disk, Reason *reterr) {
        json_t *disks = json_object_get(point, "disks");
        bool found = false;

        for (size_t i = json_array_size(disks); i-- > 0;) {
                if (strcmp(text_of(json_array_get(disks, i), "name"), disk) == 0)
                        found = true;
                else
                        json_array_remove(disks, i);
        }
        if (!found)
                return fail(reterr, -ENOENT, "%s: the point has no disk %s", text_of(point, "name"), disk);
        return 0;
}

/* What is said of one point alone is all that can be found out. */
static int find_allocated(const Path *path, Reason *reterr) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        int rc = manifest_read(path->vm, path->point, &manifest, reterr);

        if (rc == 0)
                allocation_find_all(path->vm, manifest);
        return rc == -ENOMEM ? rc : 0; /* what is wrong with it is told with the rest */
}

static int describe_path(Repository *repository, const char *text, json_t *vms, Path *path, Reason *reterr) {
        json_t *described;
        int rc = path_resolve(repository, text, path, reterr);

        if (rc < 0)
                return rc;
        if (path->point[0])
                rc = find_allocated(path, reterr);
        if (rc < 0)
                return rc;
        rc = vm_describe(path->vm, path->point[0] ? path->point : NULL, &described, reterr);
        if (rc < 0)
                return rc;
        if (json_array_append_new(vms, described) < 0)
                return fail_oom(reterr);
        return path->disk ? keep_disk(json_array_get(json_object_get(described, "points"), 0), path->disk, reterr) : 0;
}

/* Adds a second table behind a first, a line between them. */
static int append_unrecognised(const json_t *list, char **text, size_t *length) {
        CLEANUP(freep) char *second = NULL;
        size_t second_length;
        char *grown;

        if (json_array_size(list) == 0)
                return 0;
        if (format_unrecognised(list, &second, &second_length) < 0)
                return -ENOMEM;
        grown = realloc(*text, *length + 1 + second_length);
        if (!grown)
                return -ENOMEM;
        *text = grown;
        grown[(*length)++] = '\n';
        memcpy(grown + *length, second, second_length);
        *length += second_length;
        return 0;
}

static int format_text(const json_t *vms, const json_t *unrecognised, const char *path_text, const Path *path, char **ret,
                       size_t *ret_length) {
        CLEANUP(table_freep) Table *table = NULL;
        const json_t *points = json_object_get(json_array_get(vms, 0), "points");
        int bad = table_new(!path_text ? VM_COLUMNS : !path->point[0] ? POINT_COLUMNS : DISK_COLUMNS, &table);

        if (bad)
                return bad;
        if (!path_text)
                bad = add_vms(table, vms);
        else if (!path->point[0])
                bad = add_points(table, points);
        else
                bad = add_disks(table, json_object_get(json_array_get(points, 0), "disks"), path->disk);
        if (!bad)
                bad = table_format(table, ret, ret_length);
        return bad ? -ENOMEM : append_unrecognised(unrecognised, ret, ret_length);
}

static int make_list(const char *repository_path, const char *path_text, bool json, char **ret, size_t *ret_length,
                     Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(json_decrefp) json_t *root = NULL, *unrecognised = NULL;
        CLEANUP(path_clear) Path path = { 0 };
        json_t *vms = json_array();
        int rc;

        root = json_pack("{s:o}", "vms", vms);
        if (!root)
                return fail_oom(reterr);
        rc = repository_open(repository_path, 0, &repository, reterr);
        if (rc < 0)
                return rc;
        if (path_text)
                rc = describe_path(repository, path_text, vms, &path, reterr);
        else
                rc = describe_all(repository, vms, reterr);
        if (rc >= 0 && !path_text)
                rc = repository_unrecognised(repository, &unrecognised, reterr);
        if (rc >= 0 && json_array_size(unrecognised) > 0 && json_object_set(root, "unrecognised", unrecognised) < 0)
                rc = fail_oom(reterr);
        if (rc < 0)
                return rc;
        if (!json)
                return format_text(vms, unrecognised, path_text, &path, ret, ret_length) < 0 ? fail_oom(reterr) : 0;

        *ret = json_dumps(root, JSON_INDENT(2));
        if (!*ret)
                return fail_oom(reterr);
        *ret_length = strlen(*ret);
        (*ret)[(*ret_length)++] = '\n'; /* in the place of the NUL: the length counts */
        return 0;
}

static int run(const Command *command, int argc, char **argv) {
        return command_print_made(command, argc, argv, make_list);
}

const Command command_list = {
        .name = "list",
        .arguments = "REPO [PATH]",
        .summary = "VMs, points and disks: kind, time, size, stored size, parent",
        .options = options,
        .words_min = 1,
        .words_max = 2,
        .run = run,
};
