#include "repository/foreign/point-maker.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "codec/checksum.h"
#include "repository/foreign/disk-maker.h"
#include "repository/foreign/names.h"
#include "util/bytes.h"
#include "util/timestamp.h"

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

static void print_text(FILE *f, const char *text) {
        fprintf(f, "%zu:%s,", text ? strlen(text) : 0, text ?: "");
}

/* All that it says, as bytes. */
static void print(FILE *f, const Manifest *manifest, const Manifest *parent) {
        char time[TIMESTAMP_MAX];

        timestamp_format(manifest->time, time);
        print_text(f, manifest->vm);
        print_text(f, manifest->name);
        print_text(f, parent ? parent->capture : NULL);
        print_text(f, time);
        print_text(f, manifest->checkpoint);
        for (size_t i = 0; i < manifest->disk_count; i++) {
                const ManifestDisk *disk = &manifest->disks[i];

                print_text(f, disk->name);
                print_text(f, disk->problem);
                print_text(f, disk->note);
                print_text(f, disk->why);
                fprintf(f, "%d %" PRIu64 " %" PRIu64 ",", (int) disk->kind, disk->size, disk->stored);
                for (size_t j = 0; j < disk->layer_count; j++) {
                        print_text(f, disk->layers[j].format);
                        print_text(f, disk->layers[j].file);
                        print_text(f, disk->layers[j].member);
                        fprintf(f, "%" PRIu64 " %" PRIx64 ",", disk->layers[j].length, disk->layers[j].seal);
                }
        }
        for (size_t i = 0; i < manifest->file_count; i++) {
                print_text(f, manifest->files[i].name);
                print_text(f, manifest->files[i].file);
                print_text(f, manifest->files[i].member);
                fprintf(f, "%" PRIu64 " %" PRIx64 ",", manifest->files[i].length, manifest->files[i].seal);
        }
}

static int set_capture(Manifest *manifest, const Manifest *parent) {
        CLEANUP(freep) char *text = NULL;
        size_t length;
        FILE *f = open_memstream(&text, &length);

        if (!f)
                return -ENOMEM;
        print(f, manifest, parent);
        if (fclose(f) != 0)
                return -ENOMEM;
        if (asprintf(&manifest->capture, "%s.%016" PRIx64, manifest->name, checksum(text, length)) < 0) {
                manifest->capture = NULL;
                return -ENOMEM;
        }
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
