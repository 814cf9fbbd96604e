#include "partitions/filesystem.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "util/bytes.h"

#define KIB UINT64_C(1024)
#define ROUNDS 16 /* how far what leads from place to place is followed */

/* Where superblocks lie: all that libblkid knows without being led there. */
static const struct {
        uint64_t start, length;
} places[] = {
        { 0, 320 * KIB }, { 512 * KIB, 4 * KIB }, { 1024 * KIB, 64 * KIB }, { 2048 * KIB, 4 * KIB },
};
#define TAIL (192 * KIB) /* and from the end, for RAID: looked at where the beginning has nothing */

/* Those that have to be followed to be known, or for their label, each place leading to the next. */
static const char *const led[] = { "ntfs", "hfsplus", "BitLocker", "udf" };

#define ROOT_LENGTH (64 * KIB) /* of a FAT's root directory, what is looked through for the label */

void filesystem_clear(Filesystem *filesystem) {
        free(filesystem->type);
        free(filesystem->label);
        free(filesystem->uuid);
        *filesystem = (Filesystem) { 0 };
}

static void free_probe(blkid_probe *probe) {
        if (*probe)
                blkid_free_probe(*probe);
}

/* The first Oracle cluster file system, of 2002: the library believes how long its label is, and copies that much of its
 * stack. */
static char *const unsafe[] = { "ocfs", NULL };

static int new_probe(Sketch *sketch, blkid_probe *ret) {
        CLEANUP(free_probe) blkid_probe probe = blkid_new_probe();

        if (!probe || blkid_probe_set_device(probe, sketch_fd(sketch), 0, (blkid_loff_t) sketch_size(sketch)) < 0 ||
            blkid_probe_set_superblocks_flags(probe, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_UUID) < 0)
                return -ENOMEM;
        (void) blkid_probe_filter_superblocks_type(probe, BLKID_FLTR_NOTIN, (char **) unsafe);
        *ret = STEAL_PTR(probe);
        return 0;
}

/* Copies the places that a file system of one type leads to. */
static int follow(Sketch *sketch, const char *type) {
        char *const only[] = { (char *) type, NULL };
        int rc = 1;

        for (unsigned round = 0; rc == 1 && round < ROUNDS; round++) {
                CLEANUP(free_probe) blkid_probe probe = NULL;

                rc = new_probe(sketch, &probe);
                if (rc < 0)
                        return rc;
                if (blkid_probe_filter_superblocks_type(probe, BLKID_FLTR_ONLYIN, (char **) only) < 0)
                        return 0; /* a library that does not know it */
                (void) lseek(sketch_fd(sketch), 0, SEEK_SET);
                (void) blkid_do_probe(probe);
                rc = sketch_follow(sketch);
        }
        return rc < 0 ? rc : 0;
}

/* Where the root directory of a FAT begins, should it be one: with FAT32 at a cluster, before that behind the tables. */
static uint64_t fat_root(const unsigned char *boot) {
        uint64_t sector = load_le16(boot + 11), reserved = load_le16(boot + 14), short_length = load_le16(boot + 22);
        uint64_t tables = boot[16] * (short_length ?: load_le32(boot + 36)) + reserved;

        if (short_length > 0 || load_le32(boot + 44) < 2)
                return tables * sector;
        return (tables + (load_le32(boot + 44) - UINT64_C(2)) * boot[13]) * sector;
}

static uint64_t exfat_root(const unsigned char *boot) {
        unsigned sector_shift = boot[108], cluster_shift = boot[109];
        uint64_t cluster = load_le32(boot + 96), heap = load_le32(boot + 88);

        if (cluster < 2 || sector_shift > 12 || sector_shift + cluster_shift > 25)
                return 0;
        return (heap << sector_shift) + ((cluster - 2) << (sector_shift + cluster_shift));
}

/* Labels stand in root directories there, which libblkid reads on the way to other things. */
static int copy_roots(Sketch *sketch) {
        unsigned char boot[512];
        int rc;

        if (pread(sketch_fd(sketch), boot, sizeof boot, 0) != sizeof boot || boot[510] != 0x55 || boot[511] != 0xaa)
                return 0;
        rc = sketch_add(sketch, exfat_root(boot), ROOT_LENGTH);
        return rc < 0 ? rc : sketch_add(sketch, fat_root(boot), ROOT_LENGTH);
}

static int copy_places(Sketch *sketch) {
        int rc = 0;

        for (size_t i = 0; rc >= 0 && i < sizeof places / sizeof *places; i++)
                rc = sketch_add(sketch, places[i].start, places[i].length);
        if (rc >= 0)
                rc = copy_roots(sketch);
        for (size_t i = 0; rc >= 0 && i < sizeof led / sizeof *led; i++)
                rc = follow(sketch, led[i]);
        return rc;
}

/* A value of the probe's; NULL where it has none. */
static bool take(blkid_probe probe, const char *name, char **ret) {
        const char *value;

        if (blkid_probe_lookup_value(probe, name, &value, NULL) < 0 || !*value)
                return true;
        *ret = strdup(value);
        return *ret;
}

int filesystem_identify(const DiskBytes *disk, uint64_t start, uint64_t size, Filesystem *ret, char **ret_trouble,
                        Reason *reterr) {
        CLEANUP(filesystem_clear) Filesystem filesystem = { 0 };
        CLEANUP(sketch_freep) Sketch *sketch = NULL;
        CLEANUP(free_probe) blkid_probe probe = NULL;
        CLEANUP(freep) char *trouble = NULL;
        const char *words = NULL;
        int rc;

        rc = sketch_new(disk, start, size, &sketch, reterr);
        if (rc < 0)
                return rc;
        if (copy_places(sketch) < 0 || new_probe(sketch, &probe) < 0)
                return fail_oom(reterr);
        rc = blkid_do_safeprobe(probe);
        if (rc == 1 && size > TAIL) {
                blkid_free_probe(STEAL_PTR(probe));
                if (sketch_add(sketch, size - TAIL, TAIL) < 0 || new_probe(sketch, &probe) < 0)
                        return fail_oom(reterr);
                rc = blkid_do_safeprobe(probe);
        }
        if (rc == -2)
                words = "it looks like several file systems at once";
        if (rc == 0 && (!take(probe, "TYPE", &filesystem.type) || !take(probe, "LABEL", &filesystem.label) ||
                        !take(probe, "UUID", &filesystem.uuid)))
                return fail_oom(reterr);
        if (sketch_trouble(sketch))
                words = sketch_trouble(sketch);
        if (words) {
                trouble = strdup(words);
                if (!trouble)
                        return fail_oom(reterr);
        }
        *ret = filesystem;
        *ret_trouble = STEAL_PTR(trouble);
        filesystem = (Filesystem) { 0 };
        return 0;
}
