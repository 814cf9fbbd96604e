#include "formats/qcow2/header.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/qcow2/layout.h"
#include "util/bytes.h"

#define HEADER_LENGTH_V2 72u
#define AREA_MAX (64u << 10) /* bytes from the beginning in which header, extensions and backing file's name have to lie */
#define AREA_FIRST 4096u     /* of which nearly always no more is used */
#define CLUSTER_BITS_MIN 9
#define CLUSTER_BITS_MIN_EXTENDED 14
#define CLUSTER_BITS_MAX 21

#define AUTOCLEAR_BITMAPS 1

#define FEATURE_NAME_RECORD 48

/* The bytes from the file's beginning on in which all of it lies. */
typedef struct Area {
        const ByteStore *image;
        unsigned char bytes[AREA_MAX];
        uint32_t length;
} Area;

static int damaged(const ByteStore *image, Reason *reterr, const char *what) {
        return fail(reterr, -EBADMSG, "%s is damaged: %s", byte_store_name(image), what);
}

static int copy_text(const Area *area, uint64_t offset, uint32_t length, char *to, size_t max, const char *what,
                     Reason *reterr) {
        if (length > max || offset > area->length || length > area->length - offset)
                return fail(reterr, -EBADMSG, "%s is damaged: the name of %s is too long, or not where it should be",
                            byte_store_name(area->image), what);
        memcpy(to, area->bytes + offset, length);
        to[length] = 0;
        return 0;
}

/* A feature that nobody here knows, by the name that the image gives to it. */
static int refuse_feature(const Area *area, uint64_t unknown, const unsigned char *names, uint32_t names_length,
                          Reason *reterr) {
        int bit = __builtin_ctzll(unknown);
        char name[FEATURE_NAME_RECORD - 1] = "";

        for (uint32_t i = 0; names && i + FEATURE_NAME_RECORD <= names_length; i += FEATURE_NAME_RECORD)
                if (names[i] == 0 && names[i + 1] == bit)
                        memcpy(name, names + i + 2, FEATURE_NAME_RECORD - 2);
        return fail(reterr, -ENOTSUP, "%s needs a feature that this version does not know: %s%sbit %d",
                    byte_store_name(area->image), name, *name ? ", " : "", bit);
}

static int load_bitmaps(const Area *area, uint64_t autoclear, const unsigned char *data, uint32_t length,
                        Qcow2Header *header, Reason *reterr) {
        if (length < 24)
                return damaged(area->image, reterr, "the header extension of its bitmaps is too short");
        header->bitmap_count = load_be32(data);
        header->bitmaps_length = load_be64(data + 8);
        header->bitmaps_offset = load_be64(data + 16);
        header->bitmaps_stale = !(autoclear & AUTOCLEAR_BITMAPS);
        return 0;
}

/* What follows the header, from start on; limit: where something else begins. */
static int load_extensions(const Area *area, uint32_t start, uint64_t limit, uint64_t features, uint64_t autoclear,
                           Qcow2Header *header, Reason *reterr) {
        uint64_t end = min_u64(limit, area->length), at = start;
        const unsigned char *names = NULL;
        uint32_t names_length = 0;
        int rc = 0;

        while (rc >= 0 && end - at >= 8) {
                uint32_t type = load_be32(area->bytes + at), length = load_be32(area->bytes + at + 4);
                const unsigned char *data = area->bytes + at + 8;

                if (type == QCOW2_EXTENSION_END)
                        break;
                if (length > end - at - 8)
                        return damaged(area->image, reterr, "a header extension is longer than there is room for");
                if (type == QCOW2_EXTENSION_BACKING_FORMAT)
                        rc = copy_text(area, at + 8, length, header->backing_format, QCOW2_FORMAT_MAX,
                                       "the backing file's format", reterr);
                else if (type == QCOW2_EXTENSION_DATA_FILE)
                        rc = copy_text(area, at + 8, length, header->data_file, QCOW2_NAME_MAX, "the data file", reterr);
                else if (type == QCOW2_EXTENSION_BITMAPS)
                        rc = load_bitmaps(area, autoclear, data, length, header, reterr);
                else if (type == QCOW2_EXTENSION_FEATURE_NAMES) {
                        names = data;
                        names_length = length;
                }
                at = min_u64(at + 8 + round_up(length, 8), end);
        }
        if (rc >= 0 && features & ~(uint64_t) QCOW2_FEATURES_KNOWN)
                rc = refuse_feature(area, features & ~(uint64_t) QCOW2_FEATURES_KNOWN, names, names_length, reterr);
        return rc;
}

/* Version 3 has features, and says how long it is. */
static int load_features(const Area *area, Qcow2Header *header, uint64_t *ret_features, uint64_t *ret_autoclear,
                         uint32_t *ret_length, Reason *reterr) {
        const unsigned char *bytes = area->bytes;
        uint64_t features;
        uint8_t compression;

        if (area->length < QCOW2_HEADER_LENGTH_V3)
                return damaged(area->image, reterr, "it is too short for its header");
        features = load_be64(bytes + 72);
        *ret_length = load_be32(bytes + 100);
        if (*ret_length < QCOW2_HEADER_LENGTH_V3 || *ret_length % 8 != 0 || *ret_length > area->length)
                return damaged(area->image, reterr, "its header has an impossible length");
        compression = *ret_length > QCOW2_HEADER_LENGTH_V3 ? bytes[104] : 0;
        if (compression > 1)
                return fail(reterr, -ENOTSUP, "%s is compressed in a way that this version does not know (%u)",
                            byte_store_name(area->image), compression);
        if ((compression != 0) != !!(features & QCOW2_FEATURE_COMPRESSION))
                return damaged(area->image, reterr, "its header says two things of how it is compressed");
        header->zstd = compression == 1;
        header->dirty = features & QCOW2_FEATURE_DIRTY;
        header->corrupt = features & QCOW2_FEATURE_CORRUPT;
        header->has_data_file = features & QCOW2_FEATURE_DATA_FILE;
        header->extended = features & QCOW2_FEATURE_EXTENDED;
        if (header->extended && header->cluster_bits < CLUSTER_BITS_MIN_EXTENDED)
                return damaged(area->image, reterr, "its clusters are too small to have subclusters");
        *ret_features = features;
        *ret_autoclear = load_be64(bytes + 88);
        return 0;
}

static int load_backing(const Area *area, uint64_t offset, uint32_t length, Qcow2Header *header, Reason *reterr) {
        if (offset == 0)
                return 0;
        if (length == 0)
                return damaged(area->image, reterr, "the name of its backing file is empty");
        return copy_text(area, offset, length, header->backing, QCOW2_NAME_MAX, "its backing file", reterr);
}

int qcow2_state_check(const Qcow2Header *header, const Qcow2State *state, uint32_t count, uint64_t file_size,
                      const char *words, Reason *reterr) {
        /* An L2 table has one cluster of entries. */
        uint32_t table_bits = 2 * header->cluster_bits - qcow2_entry_bits(header);
        uint64_t needed = divide_up(state->disk_size, UINT64_C(1) << table_bits);

        if (state->disk_size > INT64_MAX)
                return fail(reterr, -EBADMSG, "%s has an impossible size", words);
        if (needed > count)
                return fail(reterr, -EBADMSG, "the L1 table of %s is too small for its size", words);
        if (state->l1_offset % (UINT64_C(1) << header->cluster_bits) != 0)
                return fail(reterr, -EBADMSG, "the L1 table of %s lies at no multiple of the cluster size", words);
        if (state->l1_offset > file_size || needed * 8 > file_size - state->l1_offset)
                return fail(reterr, -EBADMSG, "the L1 table of %s lies past the file's end", words);
        return 0;
}

/* What both versions have, of an area that is long enough for it. */
static int load_fixed(const Area *area, Qcow2Header *header, Reason *reterr) {
        const unsigned char *bytes = area->bytes;
        uint32_t method = load_be32(bytes + 32);

        header->version = load_be32(bytes + 4);
        header->cluster_bits = load_be32(bytes + 20);
        header->active = (Qcow2State) { load_be64(bytes + 24), load_be64(bytes + 40) };
        header->snapshot_count = load_be32(bytes + 60);
        header->snapshots_offset = load_be64(bytes + 64);
        if (header->version != 2 && header->version != 3)
                return fail(reterr, -ENOTSUP, "%s is of version %u of the format: this version reads 2 and 3",
                            byte_store_name(area->image), header->version);
        if (method != 0)
                return fail(reterr, -ENOTSUP, "%s is encrypted%s: decrypt it with qemu-img convert first",
                            byte_store_name(area->image), method == 1 ? " (AES)" : method == 2 ? " (LUKS)" : "");
        if (header->cluster_bits < CLUSTER_BITS_MIN || header->cluster_bits > CLUSTER_BITS_MAX)
                return damaged(area->image, reterr, "its header has an impossible cluster size");
        return 0;
}

/* Up to where header, extensions and the backing file's name go, as far as what has been read tells. */
static uint64_t needed_length(const Area *area) {
        uint64_t at = load_be32(area->bytes + 4) == 2 ? HEADER_LENGTH_V2 : load_be32(area->bytes + 100);
        uint64_t backing = load_be64(area->bytes + 8);

        while (at + 8 <= area->length && load_be32(area->bytes + at) != QCOW2_EXTENSION_END)
                at += 8 + round_up(load_be32(area->bytes + at + 4), 8);
        return max_u64(at + 8, backing < AREA_MAX ? backing + load_be32(area->bytes + 16) : AREA_MAX);
}

/* All that belongs to the header; one read where it is not more than most have. */
static int load_area(ByteStore *image, Area *area, Reason *reterr) {
        uint64_t size = byte_store_size(image), end;
        uint32_t cluster_bits;
        int rc;

        area->image = image;
        area->length = (uint32_t) min_u64(size, AREA_FIRST);
        rc = byte_store_read(image, area->bytes, area->length, 0, reterr);
        if (rc < 0 || area->length < HEADER_LENGTH_V2 || memcmp(area->bytes, QCOW2_MAGIC, 4) != 0)
                return rc;
        cluster_bits = load_be32(area->bytes + 20);
        if (cluster_bits < CLUSTER_BITS_MIN || cluster_bits > CLUSTER_BITS_MAX)
                return 0;
        end = min_u64(min_u64(size, AREA_MAX), UINT64_C(1) << cluster_bits);
        if (end > area->length && area->length < needed_length(area))
                rc = byte_store_read(image, area->bytes + area->length, end - area->length, area->length, reterr);
        else
                end = min_u64(end, area->length);
        area->length = (uint32_t) end;
        return rc;
}

int qcow2_header_load(ByteStore *image, Qcow2Header *ret, Reason *reterr) {
        CLEANUP(freep) Area *area = malloc(sizeof *area);
        Qcow2Header header = { 0 };
        uint64_t features = 0, autoclear = 0, backing_offset, limit;
        uint32_t length = HEADER_LENGTH_V2;
        Reason reason = REASON_INIT;
        int rc;

        if (!area)
                return fail_oom(reterr);
        rc = load_area(image, area, reterr);
        if (rc < 0)
                return rc;
        if (area->length < 4 || memcmp(area->bytes, QCOW2_MAGIC, 4) != 0)
                return 0;
        if (area->length < HEADER_LENGTH_V2)
                return damaged(image, reterr, "it is too short for its header");
        rc = load_fixed(area, &header, reterr);
        if (rc >= 0 && header.version == 3)
                rc = load_features(area, &header, &features, &autoclear, &length, reterr);
        if (rc < 0)
                return rc;
        backing_offset = load_be64(area->bytes + 8);
        limit = backing_offset > 0 ? backing_offset : UINT64_C(1) << header.cluster_bits;
        if (limit < length)
                return damaged(image, reterr, "the name of its backing file lies within its header");
        rc = load_extensions(area, length, limit, features, autoclear, &header, reterr);
        if (rc >= 0)
                rc = load_backing(area, backing_offset, load_be32(area->bytes + 16), &header, reterr);
        if (rc < 0)
                return rc;
        rc = qcow2_state_check(&header, &header.active, load_be32(area->bytes + 36), byte_store_size(image), "the disk",
                               &reason);
        if (rc < 0)
                return damaged(image, reterr, reason.text);
        *ret = header;
        return 1;
}
