#include "repository/foreign/point-maker.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "codec/checksum.h"
#include "repository/foreign/disk-maker.h"
#include "repository/foreign/names.h"
#include "util/bytes.h"
#include "util/text.h"

#define FILE_NAME_MAX 240 /* bytes: a number may be put behind it */

static int copy(const char *text, char **ret) {
        *ret = text ? strdup(text) : NULL;
        return text && !*ret ? -ENOMEM : 0;
}

static int add_disks(const Groups *groups, const GroupPoint *point, Manifest *manifest) {
        const FoundLayer *last = NULL;
        int rc = 0;

        manifest->disks = calloc(point->layer_count + 1, sizeof *manifest->disks);
        if (!manifest->disks)
                return -ENOMEM;
        for (size_t i = 0; rc == 0 && i < point->layer_count; i++) {
                const FoundLayer *found = point->layers[i];

                if (last && strcmp(last->disk, found->disk) == 0) {
                        rc = disk_refuse_double(&manifest->disks[manifest->disk_count - 1], last, found);
                        continue;
                }
                rc = disk_make(groups, point, found, &manifest->disks[manifest->disk_count++]);
                last = found;
        }
        return rc;
}

/* Names that have become the same by cleaning get numbers. */
static int number_names(Manifest *manifest) {
        CLEANUP(freep) char ***names = calloc(manifest->disk_count + manifest->file_count + 1, sizeof *names);
        int rc;

        if (!names)
                return -ENOMEM;
        for (size_t i = 0; i < manifest->disk_count; i++)
                names[i] = &manifest->disks[i].name;
        rc = names_number_doubles(names, manifest->disk_count);
        for (size_t i = 0; i < manifest->file_count; i++)
                names[i] = &manifest->files[i].name;
        return rc < 0 ? rc : names_number_doubles(names, manifest->file_count);
}

static int add_files(const GroupPoint *point, Manifest *manifest) {
        manifest->files = calloc(point->kept_count + 1, sizeof *manifest->files);
        if (!manifest->files)
                return -ENOMEM;
        for (size_t i = 0; i < point->kept_count; i++) {
                const FoundKept *kept = point->kept[i];
                ManifestFile *file = &manifest->files[manifest->file_count];

                if (i > 0 && strcmp(point->kept[i - 1]->name, kept->name) == 0)
                        continue; /* the first of two serves */
                manifest->file_count++;
                file->name = name_clean(kept->name, FILE_NAME_MAX);
                if (!file->name)
                        return -ENOMEM;
                file->length = min_u64(kept->length, INT64_MAX);
                file->seal = kept->location.seal;
                file->file_length = kept->location.length;
                if (copy(kept->location.format, &file->format) < 0 || copy(kept->location.path, &file->file) < 0 ||
                    copy(kept->location.member, &file->member) < 0)
                        return -ENOMEM;
        }
        return 0;
}

/* What the point is as a whole: what its disks are that are not full. In one of both kinds all are incremental, which is
 * more careful. */
static void settle_kind(Manifest *manifest) {
        manifest->kind = POINT_FULL;
        for (size_t i = 0; i < manifest->disk_count; i++)
                if (manifest->disks[i].kind != POINT_FULL && manifest->kind != POINT_INCREMENTAL)
                        manifest->kind = manifest->disks[i].kind;
        for (size_t i = 0; i < manifest->disk_count; i++)
                if (manifest->disks[i].kind != POINT_FULL)
                        manifest->disks[i].kind = manifest->kind;
}

/* With its length: no two lists of texts are the same bytes. */
static void add_text(ChecksumState *state, const char *text) {
        uint64_t length = text ? strlen(text) : 0;

        checksum_add(state, &length, sizeof length);
        checksum_add(state, text ?: "", length);
}

static void add_number(ChecksumState *state, uint64_t number) {
        checksum_add(state, &number, sizeof number);
}

static void add_disk(ChecksumState *state, const ManifestDisk *disk) {
        add_text(state, disk->name);
        add_text(state, disk->problem);
        add_text(state, disk->note);
        add_text(state, disk->why);
        add_number(state, (uint64_t) disk->kind);
        add_number(state, disk->size);
        add_number(state, disk->stored);
        add_number(state, disk->layer_count);
        for (size_t i = 0; i < disk->layer_count; i++) {
                add_text(state, disk->layers[i].format);
                add_text(state, disk->layers[i].file);
                add_text(state, disk->layers[i].member);
                add_number(state, disk->layers[i].length);
                add_number(state, disk->layers[i].seal);
        }
}

/* All that it says. */
static void add_manifest(ChecksumState *state, const Manifest *manifest, const Manifest *parent) {
        add_text(state, manifest->vm);
        add_text(state, manifest->name);
        add_text(state, parent ? parent->capture : NULL);
        add_number(state, (uint64_t) manifest->time.tv_sec);
        add_number(state, (uint64_t) manifest->time.tv_nsec);
        add_text(state, manifest->checkpoint);
        add_number(state, manifest->disk_count);
        for (size_t i = 0; i < manifest->disk_count; i++)
                add_disk(state, &manifest->disks[i]);
        for (size_t i = 0; i < manifest->file_count; i++) {
                add_text(state, manifest->files[i].name);
                add_text(state, manifest->files[i].file);
                add_text(state, manifest->files[i].member);
                add_number(state, manifest->files[i].length);
                add_number(state, manifest->files[i].seal);
        }
}

static int set_capture(Manifest *manifest, const Manifest *parent) {
        CLEANUP(checksum_freep) ChecksumState *state = checksum_begin();

        if (!state)
                return -ENOMEM;
        add_manifest(state, manifest, parent);
        if (text_format(&manifest->capture, "%s.%016" PRIx64, manifest->name, checksum_end(state)) < 0)
                return -ENOMEM;
        return 0;
}

int point_make(const Groups *groups, const GroupPoint *point, const char *vm, const char *uuid,
               const char name[static POINT_NAME_MAX], const Manifest *parent, Manifest **ret) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        int rc = manifest_new(&manifest);

        if (rc < 0)
                return rc;
        memcpy(manifest->name, name, POINT_NAME_MAX);
        manifest->time = point->time;
        if (copy(vm, &manifest->vm) < 0 || copy(uuid, &manifest->vm_uuid) < 0 || copy("", &manifest->place) < 0 ||
            copy(parent ? parent->name : NULL, &manifest->parent) < 0)
                return -ENOMEM;
        for (size_t i = 0; i < point->layer_count && !manifest->checkpoint; i++)
                if (copy(point->layers[i]->checkpoint, &manifest->checkpoint) < 0)
                        return -ENOMEM;
        if (add_disks(groups, point, manifest) < 0 || add_files(point, manifest) < 0 || number_names(manifest) < 0)
                return -ENOMEM;
        settle_kind(manifest);
        for (size_t i = 0; i < manifest->disk_count; i++)
                disk_rest_on(&manifest->disks[i], parent);
        rc = set_capture(manifest, parent);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(manifest);
        return 0;
}
