/* fs/mount/mount-options.h - what stands behind `-o`: ours, those for the kernel, and those meant for others.
 *
 * Ours: direct_io, kernel_cache, allow_other, uid=, gid=, umask=, cache-size=, cache_dir=, cache_dir_size=, max_threads=,
 * hold=, fsname=, ro, rw. To the kernel go noexec, noatime and the like. Passed over is what mount(8), systemd and
 * /etc/fstab say to themselves or each other. Nothing else is accepted. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "util/reason.h"

/* How the kernel reads disks. Past its page cache each request carries what the reader asked for, and nothing is copied
 * twice: twice as fast for all who read in large pieces. Through it, small reads and repeated ones are served by it. */
typedef enum DiskReads {
        DISK_READS_BEST,   /* past the page cache where such files can be mapped, which takes Linux 6.6 */
        DISK_READS_DIRECT, /* past it */
        DISK_READS_CACHED, /* through it */
} DiskReads;

typedef struct MountOptions {
        DiskReads disk_reads;
        bool allow_other;
        bool read_only;    /* no captures through the trigger */
        uid_t uid;         /* owner and permissions of what is shown */
        gid_t gid;
        mode_t umask;
        size_t cache_bytes;
        char *cache_dir;   /* for what is unpacked; NULL: the user's */
        uint64_t cache_dir_bytes; /* that it may take; 0: half of what is free there */
        unsigned max_threads;
        char *hold;        /* what needs the mount: no signal ends it while files are open; NULL: any does */
        char *fsname;      /* what mount(8) shows; NULL: the repository */
        char *passed;      /* for libfuse, with commas between; NULL: nothing */
} MountOptions;

/* The mounting user's, closed to everybody else. */
MountOptions mount_options_default(void);
void mount_options_clear(MountOptions *options);

/* Takes one argument of `-o` in. -EINVAL names the option. */
int mount_options_add(MountOptions *options, const char *text, Reason *reterr);
