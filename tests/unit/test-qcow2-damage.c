/* qcow2 images that are wrong in one field: what that field tells of is refused in words, all else can be read. */
#include <errno.h>
#include <pthread.h>

#include "extents.h"
#include "qcow2-images.h"
#include "random.h"
#include "unit.h"

/* An image of version 3 with clusters of 4 KiB: header, L1, L2, a snapshot's L2, the table of snapshots, data. Its disk has
 * seven clusters and a bit, in order: data, zeroes, absent, compressed, data, data, absent, and the bit: data. */
enum {
        CLUSTER = 4096,
        AT_L1 = 1 * CLUSTER,
        AT_L2 = 2 * CLUSTER,
        AT_SNAPSHOTS = 3 * CLUSTER,
        AT_DATA = 4 * CLUSTER,       /* of guest clusters 0, 4, 5, 7 */
        AT_COMPRESSED = 8 * CLUSTER, /* a deflate stream of one stored block */
        COMPRESSED_LENGTH = 5 + CLUSTER,
        IMAGE_LENGTH = AT_COMPRESSED + COMPRESSED_LENGTH,
        DISK_SIZE = 7 * CLUSTER + 1001,
};

#define COPIED (UINT64_C(1) << 63)
#define COMPRESSED (UINT64_C(1) << 62)

static void put_be16(uint8_t *to, uint16_t value) {
        to[0] = (uint8_t) (value >> 8);
        to[1] = (uint8_t) value;
}

static void put_be32(uint8_t *to, uint32_t value) {
        put_be16(to, (uint16_t) (value >> 16));
        put_be16(to + 2, (uint16_t) value);
}

static void put_be64(uint8_t *to, uint64_t value) {
        put_be32(to, (uint32_t) (value >> 32));
        put_be32(to + 4, (uint32_t) value);
}

typedef struct Case {
        TemporaryDirectory directory;
        LayerStore *store;
        uint8_t image[IMAGE_LENGTH];
        uint8_t disk[DISK_SIZE]; /* absent bytes are 0 */
} Case;

static void case_clear(Case *c) {
        layer_store_free(c->store);
        temporary_directory_clear(&c->directory);
}

static uint8_t *l2_entry(Case *c, uint32_t cluster) {
        return c->image + AT_L2 + cluster * 8;
}

static void put_data(Case *c, uint32_t cluster, uint32_t place) {
        uint32_t start = cluster * CLUSTER, length = min_u64(CLUSTER, DISK_SIZE - start);

        for (uint32_t i = 0; i < length; i++)
                c->disk[start + i] = (uint8_t) (1 + random_below(255));
        memcpy(c->image + AT_DATA + place * CLUSTER, c->disk + start, length);
        put_be64(l2_entry(c, cluster), COPIED | (AT_DATA + place * CLUSTER));
}

static void put_compressed(Case *c, uint32_t cluster) {
        uint8_t *at = c->image + AT_COMPRESSED;

        memcpy(at, "\x01\x00\x10\xff\xef", 5);
        for (uint32_t i = 0; i < CLUSTER; i++)
                at[5 + i] = c->disk[cluster * CLUSTER + i] = (uint8_t) (1 + random_below(255));
        /* Eight sectors behind the first, which ends with the file. */
        put_be64(l2_entry(c, cluster), COMPRESSED | UINT64_C(8) << (62 - 4) | AT_COMPRESSED);
}

static Case case_new(void) {
        Case c = { .directory = temporary_directory() };
        uint8_t *header = c.image;

        memcpy(header, "QFI\xfb", 4);
        put_be32(header + 4, 3);
        put_be32(header + 20, 12);
        put_be64(header + 24, DISK_SIZE);
        put_be32(header + 36, 1);
        put_be64(header + 40, AT_L1);
        put_be32(header + 60, 1);
        put_be64(header + 64, AT_SNAPSHOTS);
        put_be32(header + 100, 104);
        put_be64(c.image + AT_L1, COPIED | AT_L2);

        /* A snapshot of the same state. */
        put_be64(c.image + AT_SNAPSHOTS, AT_L1);
        put_be32(c.image + AT_SNAPSHOTS + 8, 1);
        put_be16(c.image + AT_SNAPSHOTS + 12, 1);
        put_be16(c.image + AT_SNAPSHOTS + 14, 4);
        put_be32(c.image + AT_SNAPSHOTS + 36, 16);
        put_be64(c.image + AT_SNAPSHOTS + 48, DISK_SIZE);
        memcpy(c.image + AT_SNAPSHOTS + 56, "1name", 5);

        put_data(&c, 0, 0);
        put_be64(l2_entry(&c, 1), 1);
        put_compressed(&c, 3);
        put_data(&c, 4, 1);
        put_data(&c, 5, 2);
        put_data(&c, 7, 3);
        CHECK_INT(layer_store_new(c.directory.fd, 1 << 20, &c.store), 0);
        return c;
}

/* Opens what is in c->image as of length bytes. */
static int open_case(Case *c, size_t length, uint64_t parent_size, const char *snapshot, Layer **ret, Reason *reterr) {
        save_file(&c->directory, "image", c->image, length);
        return open_image(c->store, &c->directory, "image", parent_size, snapshot, ret, reterr);
}

static Layer *open_whole(Case *c) {
        Layer *layer = NULL;
        Reason reason = REASON_INIT;

        if (open_case(c, IMAGE_LENGTH, 0, NULL, &layer, &reason) < 0) {
                fprintf(stderr, "%s\n", reason.text);
                exit(1);
        }
        return layer;
}

/* Reads each cluster by itself: those in bad, a bit each, fail with these words, all others show the disk. */
static void check_clusters(const Case *c, Layer *layer, uint32_t bad, const char *words) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        Reason reason = REASON_INIT;
        uint8_t bytes[CLUSTER];

        CHECK_INT(layer_extents(layer, 0, DISK_SIZE, &map, &reason), bad != 0);
        for (uint32_t cluster = 0; cluster < 8; cluster++) {
                uint32_t start = cluster * CLUSTER, length = (uint32_t) min_u64(CLUSTER, DISK_SIZE - start);
                const Extent *extent = extent_at(map, start);

                CHECK(extent && start + length <= extent->start + extent->length);
                if (bad >> cluster & 1) {
                        CHECK_INT(extent->state, EXTENT_UNREADABLE);
                        CHECK_INT(layer_read(layer, bytes, length, start, &reason), -EIO);
                        CHECK_SAYS(reason, words);
                } else if (extent->state == EXTENT_DATA) {
                        CHECK_INT(layer_read(layer, bytes, length, start, &reason), 0);
                        check_same(bytes, c->disk + start, length, "a good cluster");
                } else {
                        CHECK_INT(extent->state, EXTENT_ZERO);
                        CHECK(cluster == 1 || cluster == 2 || cluster == 6);
                }
        }
}

static void a_good_image_reads_whole(void) {
        CLEANUP(case_clear) Case c = case_new();
        CLEANUP(layer_unrefp) Layer *layer = open_whole(&c);

        CHECK_INT(layer_disk_size(layer), DISK_SIZE);
        check_clusters(&c, layer, 0, NULL);
        for (unsigned round = 0; round < 300; round++) {
                uint64_t start = 3 * CLUSTER + random_below(3 * CLUSTER), length = random_below(6 * CLUSTER - start + 1);
                uint8_t bytes[3 * CLUSTER];

                CHECK_INT(layer_read(layer, bytes, length, start, NULL), 0);
                check_same(bytes, c.disk + start, length, "a part");
        }
}

static void what_is_no_data_is_not_read(void) {
        CLEANUP(case_clear) Case c = case_new();
        CLEANUP(layer_unrefp) Layer *layer = open_whole(&c);
        Reason reason = REASON_INIT;
        uint8_t bytes[2 * CLUSTER];

        CHECK_INT(layer_read(layer, bytes, sizeof bytes, 0, &reason), -EIO);
        CHECK_SAYS(reason, "has no data at 4096 of the disk");
}

/* One field of the header: how many bytes at which offset become which value. */
typedef struct Wrong {
        size_t offset, width;
        uint64_t value;
        int rc;
        const char *words;
} Wrong;

static void put_wrong(Case *c, const Wrong *wrong) {
        uint8_t value[8];

        put_be64(value, wrong->value);
        memcpy(c->image + wrong->offset, value + 8 - wrong->width, wrong->width);
}

static void a_wrong_field_of_the_header_is_refused(void) {
        static const Wrong wrongs[] = {
                { 0, 4, 0x51464900, -EBADMSG, "is no qcow2 image" },
                { 4, 4, 1, -ENOTSUP, "is of version 1 of the format" },
                { 4, 4, 4, -ENOTSUP, "is of version 4 of the format" },
                { 8, 8, 64, -EBADMSG, "the name of its backing file lies within its header" },
                { 8, 8, 200, -EBADMSG, "the name of its backing file is empty" },
                { 8, 8, CLUSTER + 1, -EBADMSG, "the name of its backing file is empty" },
                { 20, 4, 8, -EBADMSG, "an impossible cluster size" },
                { 20, 4, 22, -EBADMSG, "an impossible cluster size" },
                { 20, 4, UINT32_MAX, -EBADMSG, "an impossible cluster size" },
                { 24, 8, UINT64_MAX, -EBADMSG, "the disk has an impossible size" },
                { 24, 8, 3 << 20, -EBADMSG, "the L1 table of the disk is too small" },
                { 32, 4, 1, -ENOTSUP, "is encrypted (AES)" },
                { 32, 4, 2, -ENOTSUP, "is encrypted (LUKS)" },
                { 32, 4, 3, -ENOTSUP, "is encrypted" },
                { 36, 4, 0, -EBADMSG, "the L1 table of the disk is too small" },
                { 40, 8, AT_L1 + 512, -EBADMSG, "lies at no multiple of the cluster size" },
                { 40, 8, UINT64_C(1) << 40, -EBADMSG, "lies past the file's end" },
                { 40, 8, UINT64_MAX - CLUSTER + 1, -EBADMSG, "lies past the file's end" },
                { 72, 8, 1 << 2, -ENOTSUP, "has its data in a file that it does not name" },
                { 72, 8, 1 << 3, -EBADMSG, "two things of how it is compressed" },
                { 72, 8, 1 << 4, -EBADMSG, "its clusters are too small to have subclusters" },
                { 72, 8, 1 << 5, -ENOTSUP, "needs a feature that this version does not know: bit 5" },
                { 72, 8, UINT64_C(1) << 63, -ENOTSUP, "bit 63" },
                { 100, 4, 96, -EBADMSG, "its header has an impossible length" },
                { 100, 4, 107, -EBADMSG, "its header has an impossible length" },
                { 100, 4, UINT32_MAX - 7, -EBADMSG, "its header has an impossible length" },
                { 104, 8, UINT64_C(0xe2792aca) << 32 | 5000, -EBADMSG, "longer than there is room for" },
                { 104, 8, UINT64_C(0xe2792aca) << 32 | 100, -EBADMSG, "the name of the backing file's format" },
                { 104, 8, UINT64_C(0x44415441) << 32 | 1024, -EBADMSG, "the name of the data file" },
                { 104, 8, UINT64_C(0x23852875) << 32 | 16, -EBADMSG, "the header extension of its bitmaps is too short" },
        };

        for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
                CLEANUP(case_clear) Case c = case_new();
                Reason reason = REASON_INIT;
                Layer *layer = NULL;

                put_wrong(&c, &wrongs[i]);
                CHECK_INT(open_case(&c, IMAGE_LENGTH, 0, NULL, &layer, &reason), wrongs[i].rc);
                CHECK_SAYS(reason, wrongs[i].words);
        }
}

static void an_unknown_feature_is_called_by_the_name_that_the_image_has_for_it(void) {
        CLEANUP(case_clear) Case c = case_new();
        Reason reason = REASON_INIT;
        Layer *layer = NULL;

        put_be64(c.image + 72, 1 << 7);
        put_be32(c.image + 104, 0x6803f857);
        put_be32(c.image + 108, 48);
        memcpy(c.image + 112, "\0\7time travel", 13);
        CHECK_INT(open_case(&c, IMAGE_LENGTH, 0, NULL, &layer, &reason), -ENOTSUP);
        CHECK_SAYS(reason, "needs a feature that this version does not know: time travel, bit 7");
}

/* What the tables say of clusters: bad has a bit for each that cannot be told. */
static void a_wrong_entry_of_a_table_is_unreadable_and_no_more(void) {
        static const struct {
                Wrong wrong;
                uint32_t bad;
        } wrongs[] = {
                { { AT_L1, 8, COPIED | AT_L2 | 1, 0, "L1 table has reserved bits set" }, 0xff },
                { { AT_L1, 8, COPIED | (AT_L2 + 512), 0, "its L2 table lies at no multiple" }, 0xff },
                { { AT_L1, 8, COPIED | UINT64_C(1) << 50, 0, "its L2 table lies past the file's end" }, 0xff },
                { { AT_L2, 8, COPIED | AT_DATA | 4, 0, "L2 table has reserved bits set" }, 1 },
                { { AT_L2, 8, COPIED | AT_DATA | UINT64_C(1) << 57, 0, "L2 table has reserved bits set" }, 1 },
                { { AT_L2, 8, COPIED, 0, "L2 table has reserved bits set" }, 1 },
                { { AT_L2, 8, COPIED | (AT_DATA + 512), 0, "its cluster lies at no multiple" }, 1 },
                { { AT_L2 + 32, 8, COPIED | UINT64_C(0xfffffffffff000), 0, "cluster lies past the file's end" }, 1 << 4 },
                { { AT_L2 + 40, 8, COPIED | (AT_COMPRESSED + CLUSTER), 0, "its cluster lies past the file's end" }, 1 << 5 },
                { { AT_L2 + 24, 8, COMPRESSED | UINT64_C(1) << 40, 0, "its cluster lies past the file's end" }, 1 << 3 },
                { { AT_L2 + 24, 8, COMPRESSED | UINT64_C(1) << 57, 0, "reserved bits set" }, 1 << 3 },
        };

        for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
                CLEANUP(case_clear) Case c = case_new();
                CLEANUP(layer_unrefp) Layer *layer = NULL;

                put_wrong(&c, &wrongs[i].wrong);
                layer = open_whole(&c);
                check_clusters(&c, layer, wrongs[i].bad, wrongs[i].wrong.words);
        }
}

static void what_cannot_be_decompressed_is_an_error(void) {
        static const Wrong wrongs[] = {
                { AT_COMPRESSED, 1, 7, 0, NULL },                                                    /* no stream */
                { AT_COMPRESSED + 1, 4, 0x000ffff0, 0, NULL },                                       /* too little */
                { AT_L2 + 24, 8, COMPRESSED | UINT64_C(7) << 58 | AT_COMPRESSED, 0, NULL },          /* cut */
                { AT_L2 + 24, 8, COMPRESSED | UINT64_C(8) << 58 | (AT_COMPRESSED + 1), 0, NULL },    /* elsewhere */
        };

        for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
                CLEANUP(case_clear) Case c = case_new();
                CLEANUP(layer_unrefp) Layer *layer = NULL;
                Reason reason = REASON_INIT;
                uint8_t bytes[CLUSTER];

                put_wrong(&c, &wrongs[i]);
                layer = open_whole(&c);
                for (uint32_t length = 100; length <= CLUSTER; length += CLUSTER - 100) {
                        CHECK_INT(layer_read(layer, bytes, length, 3 * CLUSTER, &reason), -EIO);
                        CHECK_SAYS(reason, "at 12288 of the disk: its cluster cannot be decompressed");
                }
                CHECK_INT(layer_read(layer, bytes, CLUSTER, 4 * CLUSTER, &reason), 0);
        }
}

/* A compressed cluster that the next file's sector was cut from reads on; no part of the disk reads as something else. */
static void a_truncated_file_reads_as_far_as_it_goes(void) {
        CLEANUP(case_clear) Case c = case_new();

        for (size_t length = 0; length < IMAGE_LENGTH; length += 509) {
                CLEANUP(layer_unrefp) Layer *layer = NULL;
                Reason reason = REASON_INIT;
                int rc = open_case(&c, length, 0, NULL, &layer, &reason);

                if (length < AT_L1 + 8) {
                        CHECK_INT(rc, -EBADMSG);
                        continue;
                }
                CHECK_INT(rc, 0);
                for (uint32_t cluster = 0; cluster < 8; cluster++) {
                        uint32_t start = cluster * CLUSTER, size = (uint32_t) min_u64(CLUSTER, DISK_SIZE - start);
                        uint8_t bytes[CLUSTER];

                        if (layer_read(layer, bytes, size, start, &reason) == 0)
                                check_same(bytes, c.disk + start, size, "of a truncated image");
                }
        }
}

static void what_is_absent_is_the_parents_as_far_as_that_goes(void) {
        CLEANUP(case_clear) Case c = case_new();
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        Reason reason = REASON_INIT;

        CHECK_INT(open_case(&c, IMAGE_LENGTH, 6 * CLUSTER + 100, NULL, &layer, &reason), 0);
        CHECK_INT(layer_extents(layer, 0, DISK_SIZE, &map, &reason), 0);
        CHECK_INT(extent_map_count(map), 5);
        CHECK_INT(extent_map_get(map, 1)->start, CLUSTER);
        CHECK_INT(extent_map_get(map, 1)->length, CLUSTER); /* then one is absent */
        CHECK_INT(extent_map_get(map, 2)->start, 3 * CLUSTER);
        CHECK_INT(extent_map_get(map, 3)->start, 6 * CLUSTER + 100);
        CHECK_INT(extent_map_get(map, 3)->state, EXTENT_ZERO);
        CHECK_INT(extent_map_get(map, 4)->start, 7 * CLUSTER);
}

static void a_wrong_snapshot_is_refused_and_the_active_state_reads(void) {
        static const Wrong wrongs[] = {
                { 60, 4, 400, 0, "the table of its snapshots" },
                { 60, 4, 70000, 0, "its snapshots cannot be where its header says" },
                { 64, 8, UINT64_MAX, 0, "its snapshots cannot be where its header says" },
                { 64, 8, IMAGE_LENGTH - 40, 0, "the table of its snapshots" },
                { AT_SNAPSHOTS, 8, 512, 0, "the L1 table of the snapshot lies at no multiple" },
                { AT_SNAPSHOTS, 8, UINT64_C(1) << 60, 0, "the L1 table of the snapshot lies past the file's end" },
                { AT_SNAPSHOTS + 8, 4, 0, 0, "the L1 table of the snapshot is too small" },
                { AT_SNAPSHOTS + 12, 2, 2, 0, "a name in it is none" },
                { AT_SNAPSHOTS + 14, 2, 0xffff, 0, "the table of its snapshots" },
                { AT_SNAPSHOTS + 36, 4, UINT32_MAX, 0, "an entry is too long" },
                { AT_SNAPSHOTS + 48, 8, UINT64_MAX, 0, "the snapshot has an impossible size" },
        };
        CLEANUP(case_clear) Case good = case_new();
        CLEANUP(layer_unrefp) Layer *snapshot = NULL;

        CHECK_INT(open_case(&good, IMAGE_LENGTH, 0, "1", &snapshot, NULL), 0);
        check_clusters(&good, snapshot, 0, NULL);
        for (size_t i = 0; i < sizeof wrongs / sizeof *wrongs; i++) {
                CLEANUP(case_clear) Case c = case_new();
                CLEANUP(layer_unrefp) Layer *layer = NULL;
                Reason reason = REASON_INIT;
                Layer *refused = NULL;
                int rc;

                put_wrong(&c, &wrongs[i]);
                rc = open_case(&c, IMAGE_LENGTH, 0, "1", &refused, &reason);
                CHECK(rc == -EBADMSG || rc == -EIO);
                CHECK_SAYS(reason, wrongs[i].words);
                layer = open_whole(&c);
                check_clusters(&c, layer, 0, NULL);
        }
}

static void *read_at_random(void *context) {
        Layer *layer = context;
        uint8_t bytes[3 * CLUSTER];

        for (unsigned i = 0; i < 2000; i++) {
                CLEANUP(extent_map_freep) ExtentMap *map = NULL;

                CHECK_INT(layer_extents(layer, 0, DISK_SIZE, &map, NULL), 0);
                CHECK_INT(layer_read(layer, bytes, 1 + i % sizeof bytes, 3 * CLUSTER, NULL), 0);
        }
        return NULL;
}

static void several_threads_read_at_once(void) {
        CLEANUP(case_clear) Case c = case_new();
        CLEANUP(layer_unrefp) Layer *layer = open_whole(&c);
        pthread_t threads[4];

        for (size_t i = 0; i < 4; i++)
                CHECK_INT(pthread_create(&threads[i], NULL, read_at_random, layer), 0);
        for (size_t i = 0; i < 4; i++)
                CHECK_INT(pthread_join(threads[i], NULL), 0);
}

static void a_member_that_names_nothing_is_refused(void) {
        static const char *const members[] = { "parent=", "parent=x", "parent=1x", "parent=99999999999999999999", "other",
                                               "parent=1 other", "parent=-1" };
        Qcow2Member member;
        Reason reason = REASON_INIT;

        for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
                CHECK_INT(qcow2_member_parse(members[i], &member, &reason), -EBADMSG);
                CHECK_SAYS(reason, "names nothing in a qcow2 image");
        }
        CHECK_INT(qcow2_member_parse("parent=5 snapshot=a b=c", &member, &reason), 0);
        CHECK_INT(member.parent_size, 5);
        CHECK_TEXT(member.snapshot, "a b=c");
}

int main(void) {
        RUN(a_good_image_reads_whole);
        RUN(what_is_no_data_is_not_read);
        RUN(a_wrong_field_of_the_header_is_refused);
        RUN(an_unknown_feature_is_called_by_the_name_that_the_image_has_for_it);
        RUN(a_wrong_entry_of_a_table_is_unreadable_and_no_more);
        RUN(what_cannot_be_decompressed_is_an_error);
        RUN(a_truncated_file_reads_as_far_as_it_goes);
        RUN(what_is_absent_is_the_parents_as_far_as_that_goes);
        RUN(a_wrong_snapshot_is_refused_and_the_active_state_reads);
        RUN(several_threads_read_at_once);
        RUN(a_member_that_names_nothing_is_refused);
        return unit_result();
}
