#include "partitions/lvm.h"

#include <errno.h>

#include "unit.h"
#include "util/bytes.h"

#define MIB (UINT64_C(1) << 20)
#define DISK (64 * MIB)
#define AREA 4096
#define AREA_SIZE (MIB - AREA)
#define ID "abcdefghijklmnopqrstuvwxyzABCDEF"
#define GROUP                                                                                              \
        "vg {\nextent_size = 2048 # 1 MiB\nstatus = [\"READ\", \"WRITE\"]\nphysical_volumes {\n"           \
        "pv0 { id = \"000000-0000-0000-0000-0000-0000-000000\" pe_start = 9 }\n"                          \
        "pv1 {\nid = \"abcdef-ghij-klmn-opqr-stuv-wxyz-ABCDEF\"\npe_start = 2048\n}\n}\nlogical_volumes {\n"
#define VOLUME(name, segments, count) \
        name " {\nstatus = [\"READ\", \"VISIBLE\"]\nsegment_count = " count "\n" segments "}\n"
#define SEGMENT(number, count, place) \
        "segment" number " {\nextent_count = " count "\ntype = \"striped\"\nstripe_count = 1\nstripes = [\n" place "\n]\n}\n"
#define END "}\n}\n# generated\ncontents = \"Text Format Volume Group\"\nversion = 1\n"

static int read_disk(void *context, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        CHECK(offset <= DISK && length <= DISK - offset);
        memcpy(buffer, (const unsigned char *) context + offset, length);
        return 0;
}

static int is_zero(void *context, uint64_t offset, size_t length) {
        return 0;
}

/* A physical volume with that text, which begins so far behind the area's header, in a ring. */
static unsigned char *volume_with(const char *text, size_t offset) {
        unsigned char *disk = calloc(1, DISK), *label = disk + 512;
        size_t length = strlen(text) + 1;

        memcpy(label, "LABELONE", 8);
        store_le32(label + 20, 32);
        memcpy(label + 32, ID, 32);
        store_le64(label + 32 + 40, MIB); /* data, to its end */
        store_le64(label + 32 + 72, AREA);
        store_le64(label + 32 + 80, AREA_SIZE);
        memcpy(disk + AREA + 4, " LVM2 x[5A%r0N*>", 16);
        store_le64(disk + AREA + 40, offset);
        store_le64(disk + AREA + 48, length);
        for (size_t i = 0; i < length; i++)
                disk[AREA + (offset + i < AREA_SIZE ? offset + i : offset + i - AREA_SIZE + 512)] = (unsigned char) text[i];
        return disk;
}

static int look(unsigned char *disk, LvmVolumes *ret, Reason *reterr) {
        DiskBytes bytes = { DISK, read_disk, is_zero, disk };

        return lvm_read(&bytes, 0, DISK, ret, reterr);
}

static void volumes_in_one_piece_are_ranges_of_the_disk(void) {
        static const char text[] = GROUP VOLUME("root", SEGMENT("1", "5", "\"pv1\", 2"), "1")
                VOLUME("grown", SEGMENT("1", "3", "\"pv1\", 10") SEGMENT("2", "4", "\"pv1\", 13"), "2") END;
        unsigned char *disk = volume_with(text, 512);
        LvmVolumes volumes;

        CHECK_INT(look(disk, &volumes, NULL), 0);
        CHECK_INT(volumes.count, 2);
        CHECK_TEXT(volumes.items[0].name, "vg-root");
        CHECK_INT(volumes.items[0].start, 3 * MIB);
        CHECK_INT(volumes.items[0].size, 5 * MIB);
        CHECK_TEXT(volumes.items[1].name, "vg-grown");
        CHECK_INT(volumes.items[1].start, 11 * MIB);
        CHECK_INT(volumes.items[1].size, 7 * MIB);
        lvm_clear(&volumes);
        free(disk);
}

static void other_volumes_are_named_without_a_place(void) {
        static const char text[] = GROUP VOLUME("pieces", SEGMENT("1", "3", "\"pv1\", 10") SEGMENT("2", "4", "\"pv1\", 1"), "2")
                VOLUME("elsewhere", SEGMENT("1", "3", "\"pv0\", 10"), "1") VOLUME("past", SEGMENT("1", "3", "\"pv1\", 62"), "1")
                VOLUME("far", SEGMENT("1", "9000000000000000000", "\"pv1\", 62"), "1")
                VOLUME("thin", "segment1 { type = \"thin\" extent_count = 1 }\n", "1") VOLUME("none", "", "7") END;
        unsigned char *disk = volume_with(text, 512);
        LvmVolumes volumes;

        CHECK_INT(look(disk, &volumes, NULL), 0);
        CHECK_INT(volumes.count, 6);
        for (size_t i = 0; i < 6; i++)
                CHECK_INT(volumes.items[i].size, 0);
        lvm_clear(&volumes);
        free(disk);
}

static void the_text_may_go_round_its_ring(void) {
        unsigned char *disk = volume_with(GROUP VOLUME("root", SEGMENT("1", "5", "\"pv1\", 2"), "1") END, AREA_SIZE - 100);
        LvmVolumes volumes;

        CHECK_INT(look(disk, &volumes, NULL), 0);
        CHECK_INT(volumes.count, 1);
        lvm_clear(&volumes);
        free(disk);
}

static void damaged_metadata_is_refused(void) {
        static const char *const texts[] = { "", "vg {", "vg { a = ", "vg { a = [1, 2", "vg { a = \"x", "{{{{{{{{{{{{", "vg }", "= 7",
                                             "vg { extent_size = 1 }", "../x { }" };
        LvmVolumes volumes;

        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
                unsigned char *disk = volume_with(texts[i], 512);
                Reason reason = REASON_INIT;
                int rc = look(disk, &volumes, &reason);

                CHECK(rc == -EBADMSG || (rc == 0 && volumes.count == 0));
                free(disk);
        }
        for (size_t field = 0; field < 4; field++) {
                unsigned char *disk = volume_with(GROUP END, 512);
                unsigned char *const fields[] = { disk + 512 + 104, disk + 512 + 112, disk + AREA + 40, disk + AREA + 48 };

                store_le64(fields[field], UINT64_MAX - 3);
                CHECK_INT(look(disk, &volumes, NULL), -EBADMSG);
                free(disk);
        }
}

int main(void) {
        RUN(volumes_in_one_piece_are_ranges_of_the_disk);
        RUN(other_volumes_are_named_without_a_place);
        RUN(the_text_may_go_round_its_ring);
        RUN(damaged_metadata_is_refused);
        return unit_result();
}
