#include "restore/partial.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "restore/in-use.h"
#include "util/cleanup.h"
#include "util/direct.h"
#include "util/directory.h"
#include "util/text.h"

#define SUFFIX ".partial"
#define LOCK_BYTE (INT64_C(1) << 60) /* far from those that QEMU locks in an image */
#define MODE_NEW 0600

void partial_clear(Partial *partial) {
        close_fd(&partial->fd);
        free(partial->path);
        free(partial->partial_path);
        *partial = (Partial) { .fd = -1 };
}

void partial_remove(Partial *partial) {
        if (partial->fd >= 0)
                unlink(partial->partial_path);
}

/* Its directory has to be there; it itself need not. */
static int settle_path(const char *path, char **ret, Reason *reterr) {
        CLEANUP(freep) char *first = NULL, *second = NULL, *directory = NULL;
        const char *name;

        *ret = realpath(path, NULL);
        if (*ret)
                return 0;
        if (errno != ENOENT)
                return fail_errno(reterr, -errno, "cannot reach %s", path);
        first = strdup(path);
        second = strdup(path);
        if (!first || !second)
                return fail_oom(reterr);
        name = basename(second);
        directory = realpath(dirname(first), NULL);
        if (!directory)
                return fail_errno(reterr, -errno, "cannot reach the directory of %s", path);
        if (path[strlen(path) - 1] == '/' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
                return fail(reterr, -ENOENT, "there is no directory %s", path);
        if (text_format(ret, "%s/%s", strcmp(directory, "/") == 0 ? "" : directory, name) < 0)
                return fail_oom(reterr);
        return 0;
}

/* What is there under the name already. */
static int check_old(const Partial *partial, Reason *reterr) {
        struct stat st;

        if (lstat(partial->path, &st) < 0)
                return errno == ENOENT ? 0 : fail_errno(reterr, -errno, "cannot look at %s", partial->path);
        if (S_ISDIR(st.st_mode))
                return fail(reterr, -EISDIR, "%s is a directory: name a file in it", partial->path);
        if (S_ISLNK(st.st_mode))
                return fail(reterr, -ENOENT, "%s is a symbolic link that leads nowhere", partial->path);
        if (!S_ISREG(st.st_mode))
                return fail(reterr, -EINVAL, "%s is neither a file nor a block device", partial->path);
        if (st.st_size > 0 && !partial->replace)
                return fail(reterr, -EEXIST, "%s is there already: --force replaces it", partial->path);
        return file_check_unused(partial->path, reterr);
}

/* Whether the open file is still what has the name: another restore may have finished it, or removed it. */
static bool is_named(const Partial *partial) {
        struct stat named, opened;

        return lstat(partial->partial_path, &named) == 0 && fstat(partial->fd, &opened) == 0 &&
               named.st_dev == opened.st_dev && named.st_ino == opened.st_ino;
}

static int open_locked(Partial *partial, Reason *reterr) {
        struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = LOCK_BYTE, .l_len = 1 };
        struct stat st;

        partial->fd = open(partial->partial_path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, MODE_NEW);
        if (partial->fd < 0)
                return fail_errno(reterr, -errno, "cannot make %s", partial->partial_path);
        if (fstat(partial->fd, &st) < 0)
                return fail_errno(reterr, -errno, "cannot look at %s", partial->partial_path);
        if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() || st.st_nlink > 1)
                return fail(reterr, -EEXIST, "%s is not what an interrupted restore leaves: it is in the way",
                            partial->partial_path);
        if (fcntl(partial->fd, F_OFD_SETLK, &lock) < 0 && (errno == EAGAIN || errno == EACCES))
                return fail(reterr, -EBUSY, "%s is being made by another restore", partial->path);
        partial->found = st.st_size > 0;
        return 0;
}

int partial_open(const char *path, bool replace, Partial *ret, Reason *reterr) {
        CLEANUP(partial_clear) Partial partial = { .fd = -1, .replace = replace };
        int rc;

        rc = settle_path(path, &partial.path, reterr);
        if (rc == 0)
                rc = check_old(&partial, reterr);
        if (rc < 0)
                return rc;
        if (text_format(&partial.partial_path, "%s" SUFFIX, partial.path) < 0)
                return fail_oom(reterr);
        do {
                close_fd(&partial.fd);
                partial.fd = -1;
                rc = open_locked(&partial, reterr);
        } while (rc == 0 && !is_named(&partial));
        if (rc < 0)
                return rc;
        *ret = partial;
        partial = (Partial) { .fd = -1 };
        return 0;
}

int partial_open_direct(const Partial *partial) {
        CLEANUP(close_fd) int fd = open(partial->partial_path, O_RDWR | O_DIRECT | O_CLOEXEC | O_NOFOLLOW);
        CLEANUP(freep) void *probe = aligned_alloc(DIRECT_GRAIN, DIRECT_GRAIN);

        /* Where larger pieces are wanted even a read at the end fails. */
        if (fd < 0 || !probe || pread(fd, probe, DIRECT_GRAIN, 0) < 0)
                return -1;
        return STEAL_FD(fd);
}

/* As far as they may be: an owner is given by root alone. */
static void take_over_owner(const Partial *partial) {
        struct stat st;

        if (stat(partial->path, &st) < 0 || !S_ISREG(st.st_mode))
                return;
        if (fchown(partial->fd, st.st_uid, st.st_gid) == 0 || st.st_uid == geteuid())
                (void) fchmod(partial->fd, st.st_mode & 0777);
}

int partial_finish(Partial *partial, Reason *reterr) {
        CLEANUP(freep) char *copy = strdup(partial->path);
        CLEANUP(close_fd) int directory = -1;
        int rc;

        if (!copy)
                return fail_oom(reterr);
        directory = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0)
                return fail_errno(reterr, -errno, "cannot open the directory of %s", partial->path);
        rc = check_old(partial, reterr); /* it may have come meanwhile */
        if (rc < 0)
                return rc;
        take_over_owner(partial);
        if (rename(partial->partial_path, partial->path) < 0)
                return fail_errno(reterr, -errno, "cannot give %s its name", partial->path);
        rc = sync_directory_fd(directory);
        return rc < 0 ? fail_errno(reterr, rc, "cannot sync the directory of %s", partial->path) : 0;
}
