#include "formats/qcow2/image.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "formats/qcow2/bitmaps.h"
#include "util/text.h"

#define HINT_PUSH \
        " (if that is the VM's own disk, which libvirt names in incremental push backups, qemu-img rebase -u names " \
        "the one before)"

Image *image_free(Image *image) {
        if (!image)
                return NULL;
        qcow2_snapshots_clear(&image->snapshots);
        neighbour_clear(&image->below);
        neighbour_clear(&image->data);
        image_name_clear(&image->said);
        free(image->without_below);
        free(image->path);
        free(image->problem);
        free(image->note);
        free(image->disk);
        free(image->label);
        free(image);
        return NULL;
}

int image_note(Image *image, const char *format, ...) {
        CLEANUP(freep) char *words = NULL;
        char *note;
        va_list args;
        int rc;

        va_start(args, format);
        rc = vasprintf(&words, format, args);
        va_end(args);
        if (rc < 0) {
                words = NULL;
                return -ENOMEM;
        }
        if (text_format(&note, "%s%s%s", image->note ?: "", image->note ? "; " : "", words) < 0)
                return -ENOMEM;
        free(image->note);
        image->note = note;
        return 0;
}

int image_problem(Image *image, const char *format, ...) {
        va_list args;
        int rc;

        if (image->problem)
                return 0;
        va_start(args, format);
        rc = vasprintf(&image->problem, format, args);
        va_end(args);
        if (rc < 0)
                image->problem = NULL;
        return rc < 0 ? -ENOMEM : 0;
}

static int image_new(const char *path, const struct stat *st, Image **ret) {
        CLEANUP(image_freep) Image *image = calloc(1, sizeof *image);

        if (!image)
                return -ENOMEM;
        image->st = *st;
        image->path = strdup(path);
        if (!image->path)
                return -ENOMEM;
        image->name = strrchr(image->path, '/') ? strrchr(image->path, '/') + 1 : image->path;
        if (image_name_parse(image->name, &image->said) < 0)
                return -ENOMEM;
        *ret = STEAL_PTR(image);
        return 0;
}

int image_open_raw(const char *path, const struct stat *st, Image **ret, Reason *reterr) {
        int rc = image_new(path, st, ret);

        if (rc < 0)
                return fail_oom(reterr);
        image_make_raw(*ret);
        return 0;
}

void image_make_raw(Image *image) {
        qcow2_snapshots_clear(&image->snapshots);
        neighbour_clear(&image->below);
        neighbour_clear(&image->data);
        free(image->problem);
        free(image->note);
        free(image->without_below);
        image->problem = image->note = image->without_below = NULL;
        image->header = (Qcow2Header) { 0 };
        image->raw = true;
        image->size = (uint64_t) image->st.st_size;
}

/* What makes no difference to reading, but to people. */
static int note_state(ByteStore *file, Image *image) {
        CLEANUP(freep) char *bitmaps = NULL;
        Reason reason = REASON_INIT;
        int rc = 0;

        if (image->header.corrupt)
                rc = image_note(image, "QEMU has marked the image as corrupt");
        if (rc >= 0 && image->header.dirty)
                rc = image_note(image, "it was not closed: its reference counts may be wrong, which reading needs none of");
        if (rc >= 0 && image->header.bitmaps_stale)
                rc = image_note(image, "its persistent bitmaps are out of date");
        if (rc < 0)
                return rc;
        rc = qcow2_bitmaps_describe(file, &image->header, &bitmaps, &reason);
        if (rc < 0)
                return rc == -ENOMEM ? rc : image_note(image, "its persistent bitmaps cannot be read: %s", reason.text);
        return bitmaps ? image_note(image, "persistent bitmaps: %s", bitmaps) : 0;
}

static int look_for_data_file(LayerStore *store, Image *image) {
        const char *name = image->header.data_file;
        Reason reason = REASON_INIT;
        int rc;

        if (!image->header.has_data_file)
                return 0;
        if (!*name)
                return image_problem(image, "it has its data in a file that it does not name");
        rc = neighbour_find(layer_store_root(store), image->path, name, &image->data, &reason);
        if (rc < 0)
                return rc == -ENOMEM ? rc : image_problem(image, "its data file %s %s", name, reason.text);
        return image->data.moved ? image_note(image, "its data file %s is taken from beside it", name) : 0;
}

/* A backing file is a qcow2 image or a raw one: what else there is no format here reads. */
static int look_for_backing_file(LayerStore *store, Image *image) {
        const char *name = image->header.backing, *format = image->header.backing_format;
        Reason reason = REASON_INIT;
        int rc;

        if (!*name)
                return 0;
        if (*format && strcmp(format, "raw") != 0 && strcmp(format, "qcow2") != 0)
                rc = fail(&reason, -ENOTSUP, "is of the format \"%s\", which is not read here", format);
        else
                rc = neighbour_find(layer_store_root(store), image->path, name, &image->below, &reason);
        if (rc >= 0 || rc == -ENOMEM)
                return rc;
        rc = text_format(&image->without_below, "its backing file %s %s%s", name, reason.text,
                         rc == -ENOENT && *name == '/' ? HINT_PUSH : "");
        if (rc < 0)
                image->without_below = NULL;
        return rc < 0 ? -ENOMEM : 0;
}

static int load_rest(LayerStore *store, ByteStore *file, Image *image) {
        Reason reason = REASON_INIT;
        int rc = qcow2_snapshots_load(file, &image->header, &image->snapshots, &reason);

        if (rc < 0 && rc != -ENOMEM)
                rc = image_note(image, "its snapshots are not shown: %s", reason.text);
        if (rc >= 0)
                rc = note_state(file, image);
        if (rc >= 0)
                rc = look_for_data_file(store, image);
        return rc < 0 ? rc : look_for_backing_file(store, image);
}

int image_open(LayerStore *store, const char *path, const struct stat *st, Image **ret, Reason *reterr) {
        CLEANUP(byte_store_freep) ByteStore *file = NULL;
        CLEANUP(image_freep) Image *image = NULL;
        LayerLocation location = { "qcow2", path, NULL, (uint64_t) st->st_size, found_seal(st) };
        int rc = layer_store_open_file(store, &location, &file, reterr);

        if (rc < 0)
                return rc;
        if (image_new(path, st, &image) < 0)
                return fail_oom(reterr);
        rc = qcow2_header_load(file, &image->header, reterr);
        if (rc <= 0)
                return rc;
        image->size = image->header.active.disk_size;
        if (load_rest(store, file, image) < 0)
                return fail_oom(reterr);
        *ret = STEAL_PTR(image);
        return 1;
}
