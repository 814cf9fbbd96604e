#include "util/file.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "util/directory.h"
#include "util/io.h"

/* Up to capacity bytes; fewer only at the file's end. */
static ssize_t read_up_to(int fd, char *buffer, size_t capacity) {
        size_t got = 0;

        while (got < capacity) {
                ssize_t n = read(fd, buffer + got, capacity - got);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        break;
                got += (size_t) n;
        }
        return (ssize_t) got;
}

int read_file(int dir_fd, const char *path, size_t limit, char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(close_fd) int fd = -1;
        CLEANUP(freep) char *text = NULL;
        struct stat st;
        size_t capacity;
        ssize_t n;

        /* Not blocking: a FIFO in the place of a file would wait for a writer forever. */
        fd = open_beneath(dir_fd, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
        if (fd < 0)
                return fail_errno(reterr, fd, "cannot open %s", path);
        if (fstat(fd, &st) < 0)
                return fail_errno(reterr, -errno, "cannot look at %s", path);
        if (!S_ISREG(st.st_mode))
                return fail(reterr, S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL, "cannot read %s: it is not a regular file",
                            path);
        if ((uint64_t) st.st_size > limit)
                return fail(reterr, -EFBIG, "cannot read %s: it is longer than %zu bytes", path, limit);

        /* One more than it should have tells whether it grew meanwhile; another one is for the NUL. */
        capacity = (size_t) st.st_size + 1;
        text = malloc(capacity + 1);
        if (!text)
                return fail_oom(reterr);
        n = read_up_to(fd, text, capacity);
        if (n < 0)
                return fail_errno(reterr, (int) n, "cannot read %s", path);
        if ((size_t) n == capacity)
                return fail(reterr, -EAGAIN, "cannot read %s: it grew meanwhile", path);
        text[n] = 0;
        *ret = STEAL_PTR(text);
        *ret_length = (size_t) n;
        return 0;
}

/* A synced file with this content and a temporary name; ret_fd stays open. */
static int write_temporary(int parent_fd, const void *content, size_t length, char name[static 32], int *ret_fd) {
        CLEANUP(close_fd) int fd = -1;
        uint64_t number;
        int rc;

        do {
                if (getrandom(&number, sizeof number, 0) != (ssize_t) sizeof number)
                        return -EIO;
                snprintf(name, 32, ".new-%016" PRIx64, number);
                fd = open_beneath(parent_fd, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
        } while (fd == -EEXIST);
        if (fd < 0)
                return fd;
        /* The umask may have taken bits away, never added any: no harm where the file system has no modes. */
        (void) fchmod(fd, 0600);
        rc = write_whole(fd, content, length);
        if (rc == 0 && fsync(fd) < 0)
                rc = -errno;
        if (rc < 0) {
                unlinkat(parent_fd, name, 0);
                return rc;
        }
        *ret_fd = STEAL_FD(fd);
        return 0;
}

/* Gives the file its name unless that is taken. */
static int link_new(int parent_fd, int fd, const char *temporary, const char *name) {
        struct stat st;
        int rc;

        if (linkat(parent_fd, temporary, parent_fd, name, 0) == 0) {
                unlinkat(parent_fd, temporary, 0);
                return 0;
        }
        rc = -errno;
        /* A server whose answer got lost is asked again and then says that the name is taken: by this very file. */
        if (rc == -EEXIST && fstat(fd, &st) == 0 && st.st_nlink == 2) {
                unlinkat(parent_fd, temporary, 0);
                return 0;
        }
        /* File systems without hard links (exFAT, some shares) can do the same by a rename. */
        if ((rc == -EPERM || rc == -EOPNOTSUPP || rc == -ENOSYS) &&
            renameat2(parent_fd, temporary, parent_fd, name, RENAME_NOREPLACE) == 0)
                return 0;
        if (rc != -EEXIST && errno == EEXIST)
                rc = -EEXIST;
        unlinkat(parent_fd, temporary, 0);
        return rc;
}

int create_file(int dir_fd, const char *path, const void *content, size_t length, Reason *reterr) {
        CLEANUP(close_fd) int parent_fd = -1;
        CLEANUP(close_fd) int fd = -1;
        char temporary[32];
        const char *name;
        int rc;

        rc = directory_open_parent(dir_fd, path, &parent_fd, &name);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot make %s", path);
        rc = write_temporary(parent_fd, content, length, temporary, &fd);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot make %s", path);
        rc = link_new(parent_fd, fd, temporary, name);
        if (rc == -EEXIST)
                return fail(reterr, rc, "cannot make %s: the name is taken", path);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot make %s", path);
        rc = sync_directory_fd(parent_fd);
        if (rc < 0) {
                /* A failure leaves nothing: whoever is told so may delete what the file speaks of. */
                unlinkat(parent_fd, name, 0);
                return fail_errno(reterr, rc, "cannot make %s: cannot sync its directory", path);
        }
        return 0;
}

int replace_file(int dir_fd, const char *path, const void *content, size_t length, Reason *reterr) {
        CLEANUP(close_fd) int parent_fd = -1;
        CLEANUP(close_fd) int fd = -1;
        char temporary[32];
        const char *name;
        int rc;

        rc = directory_open_parent(dir_fd, path, &parent_fd, &name);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot write %s", path);
        rc = write_temporary(parent_fd, content, length, temporary, &fd);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot write %s", path);
        if (renameat(parent_fd, temporary, parent_fd, name) < 0) {
                rc = -errno;
                unlinkat(parent_fd, temporary, 0);
                return fail_errno(reterr, rc, "cannot write %s", path);
        }
        rc = sync_directory_fd(parent_fd);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot write %s: cannot sync its directory", path);
        return 0;
}
