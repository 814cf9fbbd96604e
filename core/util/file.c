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

/* A file that is there under a temporary name only. */
typedef struct NewFile {
        int parent_fd, fd;
        const char *name;   /* that it is to have; borrowed */
        char temporary[32]; /* "": none any more */
} NewFile;

#define NEW_FILE_INIT { .parent_fd = -1, .fd = -1 }

static void drop_temporary(NewFile *file) {
        if (file->temporary[0])
                unlinkat(file->parent_fd, file->temporary, 0);
        file->temporary[0] = 0;
}

static void new_file_clear(NewFile *file) {
        drop_temporary(file);
        close_fd(&file->fd);
        close_fd(&file->parent_fd);
}

/* Makes and syncs it. */
static int new_file_write(int dir_fd, const char *path, const void *content, size_t length, NewFile *file) {
        uint64_t number;
        int rc;

        rc = directory_open_parent(dir_fd, path, &file->parent_fd, &file->name);
        if (rc < 0)
                return rc;
        do {
                if (getrandom(&number, sizeof number, 0) != (ssize_t) sizeof number)
                        return -EIO;
                snprintf(file->temporary, sizeof file->temporary, ".new-%016" PRIx64, number);
                file->fd = open_beneath(file->parent_fd, file->temporary, O_WRONLY | O_CREAT | O_EXCL, 0600);
        } while (file->fd == -EEXIST);
        if (file->fd < 0) {
                file->temporary[0] = 0;
                return file->fd;
        }
        /* The umask may have taken bits away, never added any: no harm where the file system has no modes. */
        (void) fchmod(file->fd, 0600);
        rc = write_whole(file->fd, content, length);
        return rc == 0 && fsync(file->fd) < 0 ? -errno : rc;
}

/* Gives the file its name unless that is taken. */
static int link_new(NewFile *file) {
        struct stat st;
        int rc = linkat(file->parent_fd, file->temporary, file->parent_fd, file->name, 0) < 0 ? -errno : 0;

        /* A server whose answer got lost is asked again and then says that the name is taken: by this very file. */
        if (rc == -EEXIST && fstat(file->fd, &st) == 0 && st.st_nlink == 2)
                rc = 0;
        if (rc == 0)
                drop_temporary(file);
        if (rc != -EPERM && rc != -EOPNOTSUPP && rc != -ENOSYS)
                return rc;
        /* File systems without hard links (exFAT, some shares) can do the same by a rename. */
        if (renameat2(file->parent_fd, file->temporary, file->parent_fd, file->name, RENAME_NOREPLACE) < 0)
                return errno == EEXIST ? -EEXIST : rc;
        file->temporary[0] = 0;
        return 0;
}

int create_file(int dir_fd, const char *path, const void *content, size_t length, Reason *reterr) {
        CLEANUP(new_file_clear) NewFile file = NEW_FILE_INIT;
        int rc;

        rc = new_file_write(dir_fd, path, content, length, &file);
        if (rc == 0)
                rc = link_new(&file);
        if (rc == -EEXIST)
                return fail(reterr, rc, "cannot make %s: the name is taken", path);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot make %s", path);
        rc = sync_directory_fd(file.parent_fd);
        if (rc < 0) {
                /* A failure leaves nothing: whoever is told so may delete what the file speaks of. */
                unlinkat(file.parent_fd, file.name, 0);
                return fail_errno(reterr, rc, "cannot make %s: cannot sync its directory", path);
        }
        return 0;
}

int replace_file(int dir_fd, const char *path, const void *content, size_t length, Reason *reterr) {
        CLEANUP(new_file_clear) NewFile file = NEW_FILE_INIT;
        int rc;

        rc = new_file_write(dir_fd, path, content, length, &file);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot write %s", path);
        if (renameat(file.parent_fd, file.temporary, file.parent_fd, file.name) < 0)
                return fail_errno(reterr, -errno, "cannot write %s", path);
        file.temporary[0] = 0;
        rc = sync_directory_fd(file.parent_fd);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot write %s: cannot sync its directory", path);
        return 0;
}
