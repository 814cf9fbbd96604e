#include "files/filesystem-tools.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/program.h"

#define OUTPUT_MAX 65536
#define PATIENCE_MS (10 * 60 * 1000) /* for what boots a virtual machine, which may be emulated */
#define IMAGE "\1" /* places of the words that are not known before */
#define TARGET "\2"

typedef struct Way {
        const char *type;
        const char *package; /* that has the program; NULL: the kernel, for root alone */
        const char *argv[12];
} Way;

#define SETUID_HINT ": it runs as root, to which user_allow_other in /etc/fuse.conf opens what this user mounts"
#define KERNEL(driver, options) { "mount", "-n", "-t", driver, "-o", options ",loop", "--", IMAGE, TARGET }

/* What is tried, in this order. */
static const Way ways[] = {
        { "ext2", NULL, KERNEL("ext4", "ro,noload") },
        { "ext3", NULL, KERNEL("ext4", "ro,noload") },
        { "ext4", NULL, KERNEL("ext4", "ro,noload") },
        { "xfs", NULL, KERNEL("xfs", "ro,norecovery,nouuid") },
        { "btrfs", NULL, KERNEL("btrfs", "ro,rescue=nologreplay") },
        { "ntfs", NULL, KERNEL("ntfs3", "ro") },
        { "vfat", NULL, KERNEL("vfat", "ro") },
        { "exfat", NULL, KERNEL("exfat", "ro") },
        { "f2fs", NULL, KERNEL("f2fs", "ro,norecovery") },
        { "iso9660", NULL, KERNEL("iso9660", "ro") },
        { "udf", NULL, KERNEL("udf", "ro") },
        { "squashfs", NULL, KERNEL("squashfs", "ro") },
        { "erofs", NULL, KERNEL("erofs", "ro") },
        { "jfs", NULL, KERNEL("jfs", "ro") },
        { "hfsplus", NULL, KERNEL("hfsplus", "ro") },
        { "reiserfs", NULL, KERNEL("reiserfs", "ro,nolog") },
        { "nilfs2", NULL, KERNEL("nilfs2", "ro,norecovery") },
        { "ufs", NULL, KERNEL("ufs", "ro,ufstype=ufs2") },
        { "ext2", "fuse2fs", { "fuse2fs", IMAGE, TARGET, "-o", "ro,norecovery,fakeroot" } },
        { "ext3", "fuse2fs", { "fuse2fs", IMAGE, TARGET, "-o", "ro,norecovery,fakeroot" } },
        { "ext4", "fuse2fs", { "fuse2fs", IMAGE, TARGET, "-o", "ro,norecovery,fakeroot" } },
        { "ntfs", "ntfs-3g", { "ntfs-3g", "-o", "ro,norecover", IMAGE, TARGET } },
        { "exfat", "exfat-fuse", { "mount.exfat-fuse", "-o", "ro", IMAGE, TARGET } },
        { "vfat", "fusefat", { "fusefat", "-o", "ro", IMAGE, TARGET } },
        { "squashfs", "squashfuse", { "squashfuse", IMAGE, TARGET } },
        /* The last resort: a small virtual machine, with the drivers of a Linux kernel. */
        { NULL, "guestmount", { "guestmount", "--ro", "--format=raw", "-a", IMAGE, "-m", "/dev/sda", TARGET } },
};

static const struct {
        const char *type, *words;
} others[] = {
        { "crypto_LUKS", "encrypted (LUKS): cryptsetup open --readonly asks for the key" },
        { "BitLocker", "encrypted (BitLocker): cryptsetup open --type bitlk --readonly asks for the key" },
        { "linux_raid_member", "a part of a RAID: mdadm puts it together" },
        { "zfs_member", "a part of a ZFS pool: zpool import -o readonly=on puts it together" },
};

bool filesystem_has_files(const char *type) {
        return strcmp(type, "swap") != 0 && strcmp(type, "swsuspend") != 0 && strcmp(type, "LVM2_member") != 0;
}

static int try_way(const Way *way, const char *image, const char *target, const atomic_bool *cancel, Reason *reterr) {
        const char *argv[sizeof way->argv / sizeof *way->argv];
        CLEANUP(freep) char *output = NULL;
        size_t i;

        for (i = 0; way->argv[i]; i++)
                argv[i] = strcmp(way->argv[i], IMAGE) == 0    ? image
                          : strcmp(way->argv[i], TARGET) == 0 ? target
                                                              : way->argv[i];
        argv[i] = NULL;
        return program_output_within(argv, OUTPUT_MAX, PATIENCE_MS, cancel, &output, reterr);
}

static bool is_setuid(const Way *way) {
        return way->package && strcmp(way->package, "ntfs-3g") == 0;
}

static bool serves(const Way *way, const char *type) {
        if (!way->package && geteuid() != 0)
                return false;
        return !way->type || strcmp(way->type, type) == 0;
}

int filesystem_mount(const char *type, const char *image, const char *target, const atomic_bool *cancel, Reason *reterr) {
        Reason reason = REASON_INIT, tried = REASON_INIT;
        const char *missing = NULL;

        for (size_t i = 0; i < sizeof others / sizeof *others; i++)
                if (strcmp(others[i].type, type) == 0)
                        return fail(reterr, -ENOTSUP, "it is %s", others[i].words);
        for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
                int rc;

                if (!serves(&ways[i], type))
                        continue;
                rc = try_way(&ways[i], image, target, cancel, &reason);
                if (rc >= 0 || rc == -ECANCELED)
                        return rc < 0 ? fail(reterr, rc, "interrupted") : 0;
                if (rc == -ENOENT || rc == -EACCES) /* not in PATH, of which some may be closed to us */
                        missing = missing ?: ways[i].package;
                else if (!*tried.text)
                        fail(&tried, 0, "%s%s", reason.text, is_setuid(&ways[i]) && geteuid() != 0 ? SETUID_HINT : "");
        }
        if (*tried.text)
                return fail(reterr, -EIO, "%s%s%s%s", tried.text, missing ? "; the package " : "", missing ?: "",
                            missing ? " may do it" : "");
        return fail(reterr, -ENOTSUP, "%s cannot be mounted here by %s: the package %s would", type,
                    geteuid() == 0 ? "root" : "an ordinary user", missing);
}
