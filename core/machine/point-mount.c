#include "machine/point-mount.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/program.h"
#include "util/text.h"

#define OUTPUT_MAX 4096
#define OWN_NAME "virtbackupfs: "
#define TRIES 30
#define PAUSE_US 100000

/* Words of mount options end at commas. */
static void plain(char *text) {
        for (; *text; text++)
                if (*text == ',' || *text == '\\')
                        *text = '_';
}

/* The disks are shown to QEMU's group where QEMU is another user's, and to nobody else. */
static int options(const PointMountWish *wish, char **ret) {
        CLEANUP(freep) char *held_by = strdup(wish->held_by);

        if (!held_by)
                return -ENOMEM;
        plain(held_by);
        if (hypervisor_uid(wish->hypervisor) == geteuid())
                return text_format(ret, "ro,hold=%s", held_by);
        return text_format(ret, "ro,hold=%s,allow_other,gid=%u,umask=027", held_by, hypervisor_gid(wish->hypervisor));
}

int point_mount_start(const PointMountWish *wish, const atomic_bool *cancel, Reason *reterr) {
        CLEANUP(freep) char *words = NULL, *output = NULL;
        const char *argv[] = { wish->program, "mount", "-o", NULL, "--", wish->repository, wish->mountpoint, NULL };
        const char *rest;
        Reason reason;
        int rc;

        if (options(wish, &words) < 0)
                return fail_oom(reterr);
        argv[3] = words;
        rc = program_output(argv, OUTPUT_MAX, cancel, &output, &reason);
        if (rc == 0)
                return 0;
        if (strstr(reason.text, "user_allow_other"))
                return fail(reterr, rc, "QEMU, which is another user at %s, cannot read a mount of yours until "
                                        "/etc/fuse.conf has the line 'user_allow_other'",
                            hypervisor_shown(wish->hypervisor));
        rest = reason.text;
        if (strncmp(rest, OWN_NAME, strlen(OWN_NAME)) == 0)
                rest += strlen(OWN_NAME);
        return fail(reterr, rc, "%s", rest);
}

PointMountState point_mount_state(const char *mountpoint) {
        CLEANUP(freep) char *above = NULL;
        struct stat inside, outside;

        if (stat(mountpoint, &inside) < 0)
                return errno == ENOENT ? POINT_MOUNT_NONE : POINT_MOUNT_DEAD;
        if (text_format(&above, "%s/..", mountpoint) < 0 || stat(above, &outside) < 0)
                return POINT_MOUNT_NONE;
        return inside.st_dev == outside.st_dev ? POINT_MOUNT_NONE : POINT_MOUNT_LIVES;
}

int point_mount_end(const char *mountpoint, Reason *reterr) {
        const char *argv[] = { "fusermount3", "-u", mountpoint, NULL, NULL };
        Reason reason = REASON_INIT;

        for (int i = 0; point_mount_state(mountpoint) != POINT_MOUNT_NONE; i++) {
                CLEANUP(freep) char *output = NULL;
                int rc;

                if (i > 0)
                        usleep(PAUSE_US);
                if (i == TRIES) {
                        argv[2] = "-z"; /* no VM needs it any more: whoever still looks may finish */
                        argv[3] = mountpoint;
                }
                rc = program_output(argv, OUTPUT_MAX, NULL, &output, &reason);
                if (rc < 0 && (i == TRIES || rc == -ENOENT))
                        return fail(reterr, rc, "cannot unmount %s: %s", mountpoint, reason.text);
        }
        return 0;
}
