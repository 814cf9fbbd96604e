#include "formats/qcow2/find.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "formats/qcow2/family.h"
#include "formats/qcow2/member.h"
#include "formats/qcow2/naming.h"
#include "util/text.h"

#define KEY "(qcow2 images)" /* in front of labels: two formats never share a point */

/* The key of a point: that of an image, or of a snapshot in images of that label. */
static char *point_key(const FoundDirectory *directory, const char *label, const Qcow2Snapshot *snapshot, bool with_id) {
        CLEANUP(freep) char *name = NULL;
        int rc;

        if (snapshot)
                rc = text_format(&name, KEY "%s(snapshot)%s%s%s", label, snapshot->name, with_id ? "/" : "",
                                 with_id ? snapshot->id : "");
        else
                rc = text_format(&name, KEY "%s", label);
        if (rc < 0) {
                name = NULL;
                return NULL;
        }
        return found_path(directory, name);
}

/* Adds a layer of the image, of which what is the same for all is filled in. */
static int add_layer(FoundDirectory *directory, const Image *image, const char *snapshot, FoundLayer *layer) {
        Qcow2Member member = { image->backing ? image->backing->size : 0, snapshot };
        CLEANUP(freep) char *parent = NULL;
        CLEANUP(freep) char *text = NULL;

        if (image->backing) {
                parent = point_key(directory, image->backing->label, NULL, false);
                if (!parent)
                        return -ENOMEM;
        }
        if (!image->raw && qcow2_member_format(&member, &text) < 0)
                return -ENOMEM;
        layer->parent = parent;
        layer->disk = image->base->disk;
        layer->kind = *image->header.backing || image->said.incremental ? FOUND_INCREMENTAL : FOUND_FULL;
        layer->location = (LayerLocation) {
                .format = image->raw ? "raw" : "qcow2",
                .path = image->path,
                .member = text,
                .length = (uint64_t) image->st.st_size,
                .seal = found_seal(&image->st),
        };
        return found_add_layer(directory, layer);
}

static int compare_snapshots(const void *a, const void *b) {
        const Qcow2Snapshot *x = a, *y = b;

        return strcmp(x->name, y->name) ?: strcmp(x->id, y->id);
}

static int add_snapshots(FoundDirectory *directory, Image *image) {
        Qcow2Snapshots *snapshots = &image->snapshots;

        if (snapshots->count > 1)
                qsort(snapshots->items, snapshots->count, sizeof *snapshots->items, compare_snapshots);
        for (size_t i = 0; i < snapshots->count; i++) {
                const Qcow2Snapshot *snapshot = &snapshots->items[i], *last = i > 0 ? snapshot - 1 : NULL;
                bool with_id = last && strcmp(last->name, snapshot->name) == 0;
                CLEANUP(freep) char *point = point_key(directory, image->label, snapshot, with_id);
                Reason reason = REASON_INIT;
                FoundLayer layer = { .point = point, .time = snapshot->time, .size = snapshot->state.disk_size };

                if (!point)
                        return -ENOMEM;
                if (with_id && strcmp(last->id, snapshot->id) == 0)
                        continue;
                layer.problem = image->problem;
                if (!layer.problem &&
                    qcow2_snapshot_check(&image->header, snapshot, (uint64_t) image->st.st_size, &reason) < 0)
                        layer.problem = reason.text;
                if (add_layer(directory, image, snapshot->id, &layer) < 0)
                        return -ENOMEM;
        }
        return 0;
}

static int add_image(FoundDirectory *directory, Image *image) {
        CLEANUP(freep) char *point = point_key(directory, image->label, NULL, false);
        FoundLayer layer = {
                .point = point,
                .time = image->said.time.tv_sec ? image->said.time : image->st.st_mtim,
                .checkpoint = image->said.checkpoint,
                .problem = image->problem,
                .note = image->note,
                .size = image->size,
                .stored = (uint64_t) image->st.st_blocks * 512 + (uint64_t) image->data.st.st_blocks * 512,
        };

        if (!point)
                return -ENOMEM;
        return add_layer(directory, image, NULL, &layer);
}

int qcow2_find(FoundDirectory *directory, Reason *reterr) {
        CLEANUP(family_clear) Family family = { 0 };
        int rc = family_load(directory, &family, reterr);

        if (rc < 0)
                return rc;
        rc = family_name(&family);
        for (size_t i = 0; rc >= 0 && i < family.count; i++) {
                rc = add_image(directory, family.images[i]);
                if (rc >= 0)
                        rc = add_snapshots(directory, family.images[i]);
        }
        return rc < 0 ? fail_oom(reterr) : 0;
}
