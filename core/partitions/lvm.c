#include "partitions/lvm.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "partitions/lvm-text.h"
#include "util/bytes.h"

#define SECTOR 512
#define LABEL_SECTORS 4      /* in one of which the label is */
#define ID_LENGTH 32
#define AREAS_MAX 16
#define TEXT_MAX (4u << 20)  /* bytes; the area for it is 1 MiB mostly */
#define AREA_HEADER 512
static const char area_magic[] = " LVM2 x[5A%r0N*>"; /* 16 bytes */

typedef struct Volume {
        const DiskBytes *disk;
        uint64_t start, size; /* of the physical volume */
        char id[ID_LENGTH + 1];
        LvmVolumes *volumes;
} Volume;

void lvm_clear(LvmVolumes *volumes) {
        for (size_t i = 0; i < volumes->count; i++)
                free(volumes->items[i].name);
        free(volumes->items);
        *volumes = (LvmVolumes) { 0 };
}

static int damaged(Reason *reterr) {
        return fail(reterr, -EBADMSG, "the metadata of LVM is damaged");
}

static int read_at(const Volume *pv, void *buffer, uint64_t length, uint64_t offset, Reason *reterr) {
        if (offset > pv->size || length > pv->size - offset)
                return damaged(reterr);
        return pv->disk->read(pv->disk->context, buffer, (size_t) length, pv->start + offset, reterr);
}

/* Of the label: where the metadata is. Two lists of places, each with an empty one at its end: data, and metadata. */
static int find_area(Volume *pv, uint64_t *ret_start, uint64_t *ret_size, Reason *reterr) {
        unsigned char sectors[LABEL_SECTORS * SECTOR];
        int rc = read_at(pv, sectors, sizeof sectors, 0, reterr);

        for (size_t i = 0; rc >= 0 && i < LABEL_SECTORS; i++) {
                const unsigned char *label = sectors + i * SECTOR;
                size_t at = load_le32(label + 20), lists = 0;

                if (memcmp(label, "LABELONE", 8) != 0 || at > SECTOR - ID_LENGTH - 8)
                        continue;
                memcpy(pv->id, label + at, ID_LENGTH);
                for (at += ID_LENGTH + 8; at + 16 <= SECTOR; at += 16) {
                        if (load_le64(label + at) == 0)
                                lists++;
                        else if (lists == 1) {
                                *ret_start = load_le64(label + at);
                                *ret_size = load_le64(label + at + 8);
                                return 0;
                        }
                        if (lists == 2)
                                return fail(reterr, -EBADMSG, "this physical volume of LVM has no metadata");
                }
        }
        return rc < 0 ? rc : damaged(reterr);
}

/* The text lies in a ring behind the area's header. The caller frees *ret. */
static int read_text(const Volume *pv, uint64_t area, uint64_t area_size, char **ret, size_t *ret_length, Reason *reterr) {
        unsigned char header[AREA_HEADER];
        CLEANUP(freep) char *text = NULL;
        uint64_t offset, length, first;
        int rc;

        if (area > pv->size || area_size > pv->size - area)
                return damaged(reterr);
        rc = read_at(pv, header, sizeof header, area, reterr);
        if (rc < 0)
                return rc;
        offset = load_le64(header + 40);
        length = load_le64(header + 48);
        if (memcmp(header + 4, area_magic, 16) != 0 || area_size <= AREA_HEADER || offset < AREA_HEADER ||
            offset >= area_size || length == 0 || length > TEXT_MAX || length > area_size - AREA_HEADER)
                return damaged(reterr);
        text = malloc(length);
        if (!text)
                return fail_oom(reterr);
        first = min_u64(length, area_size - offset);
        rc = read_at(pv, text, first, area + offset, reterr);
        if (rc >= 0 && first < length)
                rc = read_at(pv, text + first, length - first, area + AREA_HEADER, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(text);
        *ret_length = length;
        return 0;
}

static bool take_number(const json_t *object, const char *key, uint64_t *ret) {
        const json_t *value = json_object_get(object, key);

        if (!json_is_integer(value) || json_integer_value(value) < 0)
                return false;
        *ret = (uint64_t) json_integer_value(value);
        return true;
}

/* "aBcDeF-…" in the text, without dashes in the label. */
static bool is_id(const char *text, const char *id) {
        for (; text && *text; text++)
                if (*text != '-' && *text != *id++)
                        return false;
        return text && !*id;
}

static const char *own_name(const json_t *volumes, const char *id, uint64_t *ret_data_start) {
        const char *name;
        json_t *volume;

        json_object_foreach((json_t *) volumes, name, volume)
                if (is_id(json_string_value(json_object_get(volume, "id")), id) &&
                    take_number(volume, "pe_start", ret_data_start))
                        return name;
        return NULL;
}

/* Names are parts of file names. */
static bool is_name(const char *name) {
        return *name && *name != '.' && strlen(name) <= 127 &&
               strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+_.-") == strlen(name);
}

/* Where the segments lie, in extents, should they follow each other on this physical volume. */
static bool find_piece(const json_t *volume, const char *pv_name, uint64_t *ret_start, uint64_t *ret_count) {
        uint64_t segments, count = 0, start = 0;

        if (!take_number(volume, "segment_count", &segments) || segments == 0 || segments > 10000)
                return false;
        for (uint64_t i = 1; i <= segments; i++) {
                char key[32];
                uint64_t stripes, extents, from;
                const json_t *segment, *places;

                snprintf(key, sizeof key, "segment%u", (unsigned) i);
                segment = json_object_get(volume, key);
                places = json_object_get(segment, "stripes");
                if (strcmp(json_string_value(json_object_get(segment, "type")) ?: "", "striped") != 0 ||
                    !take_number(segment, "stripe_count", &stripes) || stripes != 1 ||
                    !take_number(segment, "extent_count", &extents) || json_array_size(places) != 2 ||
                    strcmp(json_string_value(json_array_get(places, 0)) ?: "", pv_name) != 0 ||
                    !json_is_integer(json_array_get(places, 1)) || json_integer_value(json_array_get(places, 1)) < 0)
                        return false;
                from = (uint64_t) json_integer_value(json_array_get(places, 1));
                if (i == 1)
                        start = from;
                else if (from != start + count)
                        return false;
                if (__builtin_add_overflow(count, extents, &count))
                        return false;
        }
        *ret_start = start;
        *ret_count = count;
        return count > 0;
}

static bool is_visible(const json_t *volume) {
        const json_t *status = json_object_get(volume, "status");

        for (size_t i = 0; i < json_array_size(status); i++)
                if (strcmp(json_string_value(json_array_get(status, i)) ?: "", "VISIBLE") == 0)
                        return true;
        return false;
}

static int add(Volume *pv, const char *group, const char *name, uint64_t start, uint64_t size) {
        LvmVolumes *volumes = pv->volumes;
        LvmVolume *grown = reallocarray(volumes->items, volumes->count + 1, sizeof *grown);

        if (!grown)
                return -ENOMEM;
        volumes->items = grown;
        grown[volumes->count] = (LvmVolume) { NULL, start, size };
        if (asprintf(&grown[volumes->count].name, "%s-%s", group, name) < 0)
                return -ENOMEM;
        volumes->count++;
        return 0;
}

/* Extents into bytes of the disk; false where they pass the physical volume's end. */
static bool make_range(const Volume *pv, uint64_t data_start, uint64_t extent, uint64_t first, uint64_t count,
                       uint64_t *ret_start, uint64_t *ret_size) {
        uint64_t bytes, start, size, end;

        if (__builtin_mul_overflow(extent, SECTOR, &bytes) || __builtin_mul_overflow(first, bytes, &start) ||
            __builtin_mul_overflow(count, bytes, &size) || __builtin_mul_overflow(data_start, SECTOR, &data_start) ||
            __builtin_add_overflow(start, data_start, &start) || __builtin_add_overflow(start, size, &end) ||
            end > pv->size)
                return false;
        *ret_start = pv->start + start;
        *ret_size = size;
        return true;
}

static int add_all(Volume *pv, const char *group_name, const json_t *group, Reason *reterr) {
        uint64_t data_start = 0, extent, first, count;
        const char *pv_name = own_name(json_object_get(group, "physical_volumes"), pv->id, &data_start);
        const char *name;
        json_t *volume;

        if (!pv_name || !take_number(group, "extent_size", &extent) || !is_name(group_name))
                return damaged(reterr);
        json_object_foreach(json_object_get(group, "logical_volumes"), name, volume) {
                uint64_t start = 0, size = 0;

                if (!is_name(name) || !is_visible(volume) || pv->volumes->count == LVM_VOLUMES_MAX)
                        continue;
                if (find_piece(volume, pv_name, &first, &count))
                        (void) make_range(pv, data_start, extent, first, count, &start, &size);
                if (add(pv, group_name, name, start, size) < 0)
                        return fail_oom(reterr);
        }
        return 0;
}

int lvm_read(const DiskBytes *disk, uint64_t start, uint64_t size, LvmVolumes *ret, Reason *reterr) {
        CLEANUP(lvm_clear) LvmVolumes volumes = { 0 };
        CLEANUP(json_decrefp) json_t *root = NULL;
        CLEANUP(freep) char *text = NULL;
        Volume pv = { disk, start, size, "", &volumes };
        uint64_t area = 0, area_size = 0;
        const char *name;
        json_t *value;
        size_t length = 0;
        int rc;

        rc = find_area(&pv, &area, &area_size, reterr);
        if (rc >= 0)
                rc = read_text(&pv, area, area_size, &text, &length, reterr);
        if (rc >= 0)
                rc = lvm_text_parse(text, length, &root, reterr);
        if (rc < 0)
                return rc;
        /* The volume group is the one section; beside it stand numbers and words. */
        json_object_foreach(root, name, value)
                if (json_is_object(value)) {
                        rc = add_all(&pv, name, value, reterr);
                        break;
                }
        if (rc < 0)
                return rc;
        *ret = volumes;
        volumes = (LvmVolumes) { 0 };
        return 0;
}
