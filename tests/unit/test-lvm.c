#include "partitions/lvm.h"

#include <errno.h>
#include <stdio.h>

#include "unit.h"
#include "util/bytes.h"

#define MIB (UINT64_C(1) << 20)
#define DISK (64 * MIB)
#define AREA 4096
#define AREA_SIZE (MIB - AREA)
#define ID "abcdefghijklmnopqrstuvwxyzABCDEF"
#define OTHER_ID "00000000000000000000000000000000"
#define GROUP                                                                                              \
        "vg {\nextent_size = 2048 # 1 MiB\nstatus = [\"READ\", \"WRITE\"]\nphysical_volumes {\n"           \
        "pv0 { id = \"000000-0000-0000-0000-0000-0000-000000\" pe_start = 9 }\n"                          \
        "pv1 {\nid = \"abcdef-ghij-klmn-opqr-stuv-wxyz-ABCDEF\"\npe_start = 2048\n}\n}\nlogical_volumes {\n"
#define VOLUME(name, segments, count) \
        name " {\nstatus = [\"READ\", \"VISIBLE\"]\nsegment_count = " count "\n" segments "}\n"
#define SEGMENT(number, start, count, place)                                                               \
        "segment" number " {\nstart_extent = " start "\nextent_count = " count "\ntype = \"striped\"\n" \
        "stripe_count = 1\nstripes = [\n" place "\n]\n}\n"
#define STRIPES(count, number, size, places)                                                      \
        "segment1 {\nstart_extent = 0\nextent_count = " count "\ntype = \"striped\"\nstripe_count = " \
        number "\nstripe_size = " size "\nstripes = [\n" places "\n]\n}\n"
#define END "}\n}\n# generated\ncontents = \"Text Format Volume Group\"\nversion = 1\n"

static int read_disk(void *context, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        CHECK(offset <= DISK && length <= DISK - offset);
        memcpy(buffer, (const unsigned char *) context + offset, length);
        return 0;
}

static int is_zero(void *context, uint64_t offset, size_t length) {
        return 0;
}

/* A physical volume with that id and text, which begins so far behind the area's header, in a ring. */
static unsigned char *member_with(const char *id, const char *text, size_t offset) {
        unsigned char *disk = calloc(1, DISK), *label = disk + 512;
        size_t length = strlen(text) + 1;

        memcpy(label, "LABELONE", 8);
        store_le32(label + 20, 32);
        memcpy(label + 32, id, 32);
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

static unsigned char *volume_with(const char *text, size_t offset) {
        return member_with(ID, text, offset);
}

static int gather(unsigned char *disk, size_t number, LvmMembers *members, Reason *reterr) {
        DiskBytes bytes = { DISK, read_disk, is_zero, disk };

        return lvm_members_add(members, &bytes, number, 0, 0, DISK, reterr);
}

static int look(unsigned char *disk, LvmVolumes *ret, Reason *reterr) {
        CLEANUP(lvm_members_clear) LvmMembers members = { 0 };
        int rc = gather(disk, 0, &members, reterr);

        return rc < 0 ? rc : lvm_volumes_find(&members, 0, ret, reterr);
}

static void check_piece(const LvmVolume *volume, size_t index, uint64_t size, size_t disk, uint64_t start) {
        CHECK(!volume->trouble && index < volume->piece_count);
        CHECK_INT(volume->pieces[index].size, size);
        CHECK_INT(volume->pieces[index].places->disk, disk);
        CHECK_INT(volume->pieces[index].places->start, start);
}

static void volumes_are_pieces_of_the_disk(void) {
        static const char text[] = GROUP VOLUME("root", SEGMENT("1", "0", "5", "\"pv1\", 2"), "1")
                VOLUME("grown", SEGMENT("1", "0", "3", "\"pv1\", 10") SEGMENT("2", "3", "4", "\"pv1\", 13"), "2")
                VOLUME("pieces", SEGMENT("1", "0", "3", "\"pv1\", 30") SEGMENT("2", "3", "4", "\"pv1\", 20"), "2") END;
        unsigned char *disk = volume_with(text, 512);
        LvmVolumes volumes;

        CHECK_INT(look(disk, &volumes, NULL), 0);
        CHECK_INT(volumes.count, 3);
        CHECK_TEXT(volumes.items[0].name, "vg-root");
        CHECK_INT(volumes.items[0].piece_count, 1);
        check_piece(&volumes.items[0], 0, 5 * MIB, 0, 3 * MIB);
        CHECK_TEXT(volumes.items[1].name, "vg-grown");
        CHECK_INT(volumes.items[1].piece_count, 1);
        check_piece(&volumes.items[1], 0, 7 * MIB, 0, 11 * MIB);
        CHECK_INT(volumes.items[2].piece_count, 2);
        CHECK_INT(volumes.items[2].size, 7 * MIB);
        check_piece(&volumes.items[2], 0, 3 * MIB, 0, 31 * MIB);
        check_piece(&volumes.items[2], 1, 4 * MIB, 0, 21 * MIB);
        lvm_volumes_clear(&volumes);
        free(disk);
}

static void a_volume_is_told_with_the_disk_that_it_begins_on_and_goes_on_on_others(void) {
        static const char text[] = GROUP
                VOLUME("both", SEGMENT("1", "0", "3", "\"pv1\", 10") SEGMENT("2", "3", "4", "\"pv0\", 1"), "2")
                VOLUME("other", SEGMENT("1", "0", "3", "\"pv0\", 10"), "1")
                VOLUME("stripes", STRIPES("4", "2", "128", "\"pv1\", 20, \"pv0\", 30"), "1") END;
        unsigned char *disks[] = { volume_with(text, 512), member_with(OTHER_ID, GROUP END, 512) };
        CLEANUP(lvm_members_clear) LvmMembers members = { 0 };
        LvmVolumes volumes;

        for (size_t i = 0; i < 2; i++)
                CHECK_INT(gather(disks[i], i, &members, NULL), 0);
        CHECK_INT(lvm_volumes_find(&members, 0, &volumes, NULL), 0);
        CHECK_INT(volumes.count, 2);
        CHECK_TEXT(volumes.items[0].name, "vg-both");
        check_piece(&volumes.items[0], 0, 3 * MIB, 0, 11 * MIB);
        check_piece(&volumes.items[0], 1, 4 * MIB, 1, 9 * 512 + MIB);
        CHECK_TEXT(volumes.items[1].name, "vg-stripes");
        check_piece(&volumes.items[1], 0, 4 * MIB, 0, 21 * MIB);
        CHECK_INT(volumes.items[1].pieces->place_count, 2);
        CHECK_INT(volumes.items[1].pieces->stripe_size, 65536);
        CHECK_INT(volumes.items[1].pieces->places[1].start, 9 * 512 + 30 * MIB);
        lvm_volumes_clear(&volumes);
        /* The other's own metadata is as new, and has none. */
        CHECK_INT(lvm_volumes_find(&members, 1, &volumes, NULL), 0);
        CHECK_INT(volumes.count, 0);
        lvm_volumes_clear(&volumes);
        free(disks[0]);
        free(disks[1]);
}

static void what_cannot_be_read_says_why(void) {
        static const struct {
                const char *volume, *says;
        } cases[] = {
                { VOLUME("a", SEGMENT("1", "0", "3", "\"pv1\", 10") SEGMENT("2", "3", "3", "\"pv0\", 10"), "2"),
                  "on the physical volume pv0, which no disk of the point has" },
                { VOLUME("a", SEGMENT("1", "0", "3", "\"pvmove0\", 10"), "1"), "lies on another volume, pvmove0" },
                { VOLUME("a", SEGMENT("1", "0", "3", "\"pv1\", 62"), "1"), "does not lie within the disk" },
                { VOLUME("a", SEGMENT("1", "0", "9000000000000000000", "\"pv1\", 62"), "1"), "is damaged" },
                { VOLUME("a", SEGMENT("1", "1", "3", "\"pv1\", 2"), "1"), "is damaged" },
                { VOLUME("a", "segment1 { type = \"thin\" start_extent = 0 extent_count = 1 }\n", "1"),
                  "of the kind \"thin\"" },
                { VOLUME("a", STRIPES("4", "2", "0", "\"pv1\", 2, \"pv1\", 30"), "1"), "stripes do not fit" },
                { VOLUME("a", STRIPES("4", "2", "3000", "\"pv1\", 2, \"pv1\", 30"), "1"), "stripes do not fit" },
                { VOLUME("a", STRIPES("3", "2", "128", "\"pv1\", 2, \"pv1\", 30"), "1"), "is damaged" },
                { VOLUME("a", "", "7"), "is damaged" },
                { "a {\nstatus = [\"READ\"]\nsegment_count = 1\n" SEGMENT("1", "0", "3", "\"pv1\", 2") "}\n"
                  VOLUME("snapshot0", "segment1 { type = \"snapshot\" origin = \"root\" cow_store = \"a\" }\n", "1"),
                  "is a snapshot of root" },
                { VOLUME("a", SEGMENT("1", "0", "3", "\"pv1\", 2"), "1")
                  VOLUME("snapshot0", "segment1 { type = \"snapshot\" origin = \"a\" merging_store = \"b\" }\n", "1"),
                  "a snapshot is being merged into it" },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                CLEANUP(freep) char *text = NULL;
                CLEANUP(freep) unsigned char *disk = NULL;
                Reason reason = REASON_INIT;
                LvmVolumes volumes;

                CHECK(asprintf(&text, "%s%s%s", GROUP, cases[i].volume, END) > 0);
                disk = volume_with(text, 512);
                CHECK_INT(look(disk, &volumes, NULL), 0);
                CHECK(volumes.count >= 1);
                CHECK_TEXT(volumes.items[0].name, "vg-a");
                CHECK_INT(volumes.items[0].size, 0);
                CHECK(volumes.items[0].trouble);
                fail(&reason, 0, "%s", volumes.items[0].trouble);
                CHECK_SAYS(reason, cases[i].says);
                lvm_volumes_clear(&volumes);
        }
}

static void the_newest_metadata_counts(void) {
        static const char old[] = GROUP VOLUME("old", SEGMENT("1", "0", "3", "\"pv1\", 10"), "1") "}\nseqno = 4\n}\n";
        static const char new[] = GROUP VOLUME("new", SEGMENT("1", "0", "3", "\"pv1\", 10"), "1") "}\nseqno = 5\n}\n";
        unsigned char *disks[] = { volume_with(old, 512), member_with(OTHER_ID, new, 512) };
        CLEANUP(lvm_members_clear) LvmMembers members = { 0 };
        LvmVolumes volumes;

        for (size_t i = 0; i < 2; i++)
                CHECK_INT(gather(disks[i], i, &members, NULL), 0);
        CHECK_INT(lvm_volumes_find(&members, 0, &volumes, NULL), 0);
        CHECK_INT(volumes.count, 1);
        CHECK_TEXT(volumes.items[0].name, "vg-new");
        lvm_volumes_clear(&volumes);
        free(disks[0]);
        free(disks[1]);
}

static void the_text_may_go_round_its_ring(void) {
        static const char text[] = GROUP VOLUME("root", SEGMENT("1", "0", "5", "\"pv1\", 2"), "1") END;
        unsigned char *disk = volume_with(text, AREA_SIZE - 100);
        LvmVolumes volumes;

        CHECK_INT(look(disk, &volumes, NULL), 0);
        CHECK_INT(volumes.count, 1);
        lvm_volumes_clear(&volumes);
        free(disk);
}

static void damaged_metadata_is_refused(void) {
        static const char *const texts[] = { "", "vg {", "vg { a = ", "vg { a = [1, 2", "vg { a = \"x", "{{{{{{{{{{{{",
                                             "vg }", "= 7",
                                             "vg { extent_size = 1 }", "../x { }" };
        LvmVolumes volumes;

        for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
                unsigned char *disk = volume_with(texts[i], 512);
                Reason reason = REASON_INIT;
                int rc = look(disk, &volumes, &reason);

                CHECK(rc == -EBADMSG || (rc == 0 && volumes.count == 0));
                if (rc == 0)
                        lvm_volumes_clear(&volumes);
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
        RUN(volumes_are_pieces_of_the_disk);
        RUN(a_volume_is_told_with_the_disk_that_it_begins_on_and_goes_on_on_others);
        RUN(what_cannot_be_read_says_why);
        RUN(the_newest_metadata_counts);
        RUN(the_text_may_go_round_its_ring);
        RUN(damaged_metadata_is_refused);
        return unit_result();
}
