#include "sources/image-info.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/program.h"

#define OUTPUT_MAX (16u << 20) /* bytes: an image can have 65535 bitmaps, each with a name of 1 KiB */
#define CHAIN_MAX 256
#define BITMAPS_MAX 65535

static void json_freep(json_t **json) {
        json_decref(*json);
}

void image_chain_clear(ImageChain *chain) {
        for (size_t i = 0; i < chain->count; i++) {
                ImageInfo *image = &chain->images[i];

                for (size_t b = 0; b < image->bitmap_count; b++)
                        free(image->bitmaps[b].name);
                free(image->bitmaps);
                free(image->path);
                free(image->format);
        }
        free(chain->images);
        *chain = (ImageChain) { 0 };
}

static bool has_flag(const json_t *flags, const char *name) {
        const json_t *flag;
        size_t i;

        json_array_foreach((json_t *) flags, i, flag)
                if (json_is_string(flag) && strcmp(json_string_value(flag), name) == 0)
                        return true;
        return false;
}

static int take_bitmaps(const json_t *object, ImageInfo *image) {
        const json_t *list = json_object_get(json_object_get(json_object_get(object, "format-specific"), "data"), "bitmaps");
        size_t count = json_array_size(list), i;
        const json_t *item;

        if (count > BITMAPS_MAX)
                return -E2BIG;
        image->bitmaps = calloc(count + 1, sizeof *image->bitmaps);
        if (!image->bitmaps)
                return -ENOMEM;
        json_array_foreach((json_t *) list, i, item) {
                const char *name = json_string_value(json_object_get(item, "name"));
                const json_t *flags = json_object_get(item, "flags");
                ImageBitmap *bitmap = &image->bitmaps[image->bitmap_count];

                if (!name)
                        continue;
                bitmap->name = strdup(name);
                if (!bitmap->name)
                        return -ENOMEM;
                bitmap->consistent = !has_flag(flags, "in-use");
                bitmap->recording = has_flag(flags, "auto");
                image->bitmap_count++;
        }
        return 0;
}

/* What is below the image; both NULL where there is nothing. The caller frees them. */
static int take_backing(const json_t *object, const char *path, char **ret_path, char **ret_format, Reason *reterr) {
        const char *name = json_string_value(json_object_get(object, "backing-filename"));
        const char *full = json_string_value(json_object_get(object, "full-backing-filename")) ?: name;
        const char *format = json_string_value(json_object_get(object, "backing-filename-format"));

        if (!name)
                return 0;
        if (!format)
                return fail(reterr, -EINVAL, "%s does not tell the format of its backing file %s: qemu-img rebase -u -F "
                                             "FORMAT -b FILE puts that right", path, full);
        if (full[0] != '/')
                return fail(reterr, -ENOTSUP, "the backing file of %s is none that can be opened here: %s", path, full);
        *ret_path = strdup(full);
        *ret_format = strdup(format);
        return *ret_path && *ret_format ? 0 : fail_oom(reterr);
}

/* Adds the image to the chain; what is below it goes to *ret_backing and *ret_format. */
static int read_image(const char *path, const char *format, const atomic_bool *cancel, ImageChain *chain, char **ret_backing,
                      char **ret_format, Reason *reterr) {
        const char *const argv[] = { "qemu-img", "info", "-U", "--output=json", "-f", format, path, NULL };
        CLEANUP(freep) char *output = NULL;
        CLEANUP(json_freep) json_t *object = NULL;
        ImageInfo *grown, *image;
        int rc;

        rc = program_output(argv, OUTPUT_MAX, cancel, &output, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "cannot look at the image %s", path);
        object = json_loads(output, JSON_REJECT_DUPLICATES, NULL);
        if (!json_is_object(object))
                return fail(reterr, -EPROTO, "qemu-img says what is not understood of the image %s", path);
        grown = reallocarray(chain->images, chain->count + 1, sizeof *grown);
        if (!grown)
                return fail_oom(reterr);
        chain->images = grown;
        image = &grown[chain->count++];
        *image = (ImageInfo) { .path = strdup(path), .format = strdup(format) };
        if (!image->path || !image->format)
                return fail_oom(reterr);
        rc = take_bitmaps(object, image);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot take the bitmaps of the image %s", path);
        return take_backing(object, path, ret_backing, ret_format, reterr);
}

int image_chain_read(const char *path, const char *format, const atomic_bool *cancel, ImageChain *ret, Reason *reterr) {
        CLEANUP(image_chain_clear) ImageChain chain = { 0 };
        CLEANUP(freep) char *next = strdup(path), *next_format = strdup(format);

        if (!next || !next_format)
                return fail_oom(reterr);
        while (next) {
                CLEANUP(freep) char *now = STEAL_PTR(next), *now_format = STEAL_PTR(next_format);
                int rc;

                if (chain.count == CHAIN_MAX)
                        return fail(reterr, -ELOOP, "the chain of backing files of %s does not end", path);
                rc = read_image(now, now_format, cancel, &chain, &next, &next_format, reterr);
                if (rc < 0)
                        return rc;
        }
        *ret = chain;
        chain = (ImageChain) { 0 };
        return 0;
}

const ImageBitmap *image_find_bitmap(const ImageInfo *image, const char *name) {
        for (size_t i = 0; i < image->bitmap_count; i++)
                if (strcmp(image->bitmaps[i].name, name) == 0)
                        return &image->bitmaps[i];
        return NULL;
}
