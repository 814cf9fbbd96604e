#include "points.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/byte-store.h"
#include "repository/repository.h"
#include "util/directory.h"

#define FIRST_MOMENT 1795136523 /* 2026-11-20T01:02:03Z */

void points_check(int rc, const Reason *reason) {
        if (rc >= 0)
                return;
        fprintf(stderr, "%s\n", reason->text);
        exit(1);
}

static char *copy(const char *text) {
        char *made = strdup(text);

        if (!made)
                abort();
        return made;
}

static void name_capture(unsigned number, char ret[static 32]) {
        snprintf(ret, 32, "made.%08x", number);
}

void make_point(Vm *vm, unsigned number, uint64_t disk_size, const LayerTotals *layer, char name[static POINT_NAME_MAX]) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        Reason reason = REASON_INIT;
        ManifestLayer stored = { .format = copy("native"), .file = copy("vda.layer"), .length = 1 << 20 };
        ManifestDisk disk = { .name = copy("vda"), .size = disk_size, .allocated = disk_size / 2, .layer_count = 1 };
        char capture[32];

        name_capture(number, capture);
        points_check(manifest_new(&manifest), &reason);
        manifest->time = (struct timespec) { .tv_sec = FIRST_MOMENT + 3600 * (time_t) number };
        manifest->parent = number > 0 ? copy(name) : NULL;
        points_check(point_name_next(manifest->time.tv_sec, name, manifest->name), &reason);
        manifest->vm = copy(vm_name(vm));
        manifest->vm_uuid = copy(vm_uuid(vm));
        manifest->serial = number + 1;
        manifest->kind = disk.kind = number > 0 ? POINT_INCREMENTAL : POINT_FULL;
        manifest->capture = copy(capture);
        if (layer) {
                stored.length = layer->length;
                stored.seal = layer->seal;
        }
        disk.layers = calloc(1, sizeof stored);
        manifest->disks = calloc(1, sizeof disk);
        if (!disk.layers || !manifest->disks)
                abort();
        *disk.layers = stored;
        *manifest->disks = disk;
        manifest->disk_count = 1;
        points_check(manifest_commit(vm, manifest, &reason), &reason);
        memcpy(name, manifest->name, POINT_NAME_MAX);
}

LayerWriter *make_layer(Vm *vm, unsigned number, uint64_t disk_size, const Codec *codec) {
        char capture[32], path[64];
        LayerDescription description = {
                .repository = repository_uuid(vm_repository(vm)), .vm_uuid = vm_uuid(vm), .vm = vm_name(vm), .disk = "vda",
                .capture = capture, .disk_size = disk_size, .block_size = NATIVE_BLOCK_SIZE_DEFAULT, .codec = codec,
        };
        Reason reason = REASON_INIT;
        LayerWriter *writer = NULL;
        ByteSink *sink = NULL;

        name_capture(number, capture);
        snprintf(path, sizeof path, "data/%s", capture);
        points_check(make_directory(vm_fd(vm), path, &reason), &reason);
        snprintf(path, sizeof path, "data/%s/vda.layer", capture);
        points_check(file_sink_create(vm_fd(vm), path, &sink, &reason), &reason);
        points_check(layer_writer_new(sink, &description, &writer, &reason), &reason);
        return writer;
}
