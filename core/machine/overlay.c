#include "machine/overlay.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/program.h"

#define OUTPUT_MAX 4096
#define SECTOR 512

int overlay_make(const char *path, const char *backing, uint64_t size, const atomic_bool *cancel, Reason *reterr) {
        CLEANUP(freep) char *output = NULL;
        char sectors[32];
        const char *argv[] = { "qemu-img", "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", backing, path,
                               sectors, NULL };
        struct stat st;
        int rc;

        if (stat(backing, &st) < 0)
                return fail_errno(reterr, -errno, "the mount does not show %s", backing);
        /* Sectors are whole: what is past the disk's end reads as zeroes. */
        snprintf(sectors, sizeof sectors, "%" PRIu64, (size + SECTOR - 1) / SECTOR * SECTOR);
        rc = program_output(argv, OUTPUT_MAX, cancel, &output, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "cannot make %s", path);
        if (chmod(path, 0600) < 0)
                return fail_errno(reterr, -errno, "cannot close %s to others", path);
        return 0;
}

int overlay_attach(const char *path, const char *backing, const atomic_bool *cancel, Reason *reterr) {
        const char *argv[] = { "qemu-img", "rebase", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", backing, path, NULL };
        CLEANUP(freep) char *output = NULL;
        int rc = program_output(argv, OUTPUT_MAX, cancel, &output, reterr);

        return rc < 0 ? fail_within(reterr, rc, "cannot put %s below %s again", backing, path) : 0;
}
