#include "chain/reach.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "extent/extent-map.h"
#include "formats/layer.h"
#include "repository/manifest.h"
#include "util/clock.h"

/* Whether the layer tells of the byte itself. */
static bool layer_has(Vm *vm, const Manifest *manifest, const ManifestLayer *stored, uint64_t offset) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        LayerLocation location;
        size_t at;
        int rc;

        if (manifest_layer_location(manifest, stored, &location, NULL) < 0)
                return true;
        rc = layer_open(vm_layers(vm), &location, &layer, NULL);
        free((char *) location.path);
        if (rc == 0 && offset >= layer_disk_size(layer))
                return false;
        if (rc < 0 || layer_extents(layer, offset, 1, &map, NULL) < 0)
                return true;
        at = extent_map_find(map, offset);
        return at < extent_map_count(map) && extent_map_get(map, at)->start <= offset;
}

/* Whether the point shows what its parent does there. */
static bool shows_parents(Vm *vm, const Manifest *manifest, const char *name, uint64_t offset) {
        const ManifestDisk *disk = manifest_find_disk(manifest, name);

        if (!disk || disk->kind == POINT_FULL || disk->problem || offset >= disk->size)
                return false;
        for (size_t i = 0; i < disk->layer_count; i++)
                if (layer_has(vm, manifest, &disk->layers[i], offset))
                        return false;
        return true;
}

int reach_find(Vm *vm, const char *point, const char *disk, uint64_t offset, unsigned patience_ms, Strings *ret,
               bool *ret_more, Reason *reterr) {
        CLEANUP(strings_free) Strings names = { 0 }, reached = { 0 };
        uint64_t end = clock_now_ms() + patience_ms;
        int rc = vm_list_points(vm, &names, reterr);

        if (rc < 0)
                return rc;
        rc = strings_add(&reached, point);
        *ret_more = false;
        for (size_t i = 0; rc == 0 && i < names.count && !*ret_more; i++) {
                CLEANUP(manifest_unrefp) Manifest *manifest = NULL;

                if (strcmp(names.items[i], point) <= 0)
                        continue;
                *ret_more = clock_now_ms() > end;
                if (*ret_more || manifest_read(vm, names.items[i], &manifest, NULL) < 0 || !manifest->parent)
                        continue;
                if (strings_find(&reached, manifest->parent) && shows_parents(vm, manifest, disk, offset))
                        rc = strings_add(&reached, names.items[i]);
        }
        if (rc < 0)
                return fail_oom(reterr);
        *ret = reached;
        reached = (Strings) { 0 };
        return 0;
}
