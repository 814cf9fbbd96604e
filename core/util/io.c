#include "util/io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define NAME_LIMIT 256   /* bytes of one name, NUL included */
#define PATH_LIMIT 4096  /* bytes of a path, NUL included */
#define TREE_DEPTH_MAX 32

static bool has_parent_component(const char *path) {
        for (const char *c = path; *c;) {
                size_t length = strcspn(c, "/");

                if (length == 2 && c[0] == '.' && c[1] == '.')
                        return true;
                c += length;
                c += *c == '/';
        }
        return false;
}

int open_beneath(int dir_fd, const char *path, int flags, mode_t mode) {
        struct open_how how = {
                .flags = (uint64_t) (unsigned) (flags | O_CLOEXEC),
                .mode = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? mode : 0,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
        };
        int fd;

        if (has_parent_component(path))
                return -EXDEV;
        do
                fd = (int) syscall(SYS_openat2, dir_fd, path, &how, sizeof how);
        while (fd < 0 && errno == EINTR);
        return fd < 0 ? -errno : fd;
}

int pread_whole(int fd, void *buffer, size_t length, uint64_t offset) {
        char *to = buffer;

        if (offset > INT64_MAX || length > INT64_MAX - offset)
                return -EINVAL;
        while (length > 0) {
                ssize_t n = pread(fd, to, length, (off_t) offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                if (n == 0)
                        return -ENODATA;
                to += n;
                length -= (size_t) n;
                offset += (uint64_t) n;
        }
        return 0;
}

int pwrite_whole(int fd, const void *buffer, size_t length, uint64_t offset) {
        const char *from = buffer;

        if (offset > INT64_MAX || length > INT64_MAX - offset)
                return -EINVAL;
        while (length > 0) {
                ssize_t n = pwrite(fd, from, length, (off_t) offset);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return n < 0 ? -errno : -ENOSPC;
                from += n;
                length -= (size_t) n;
                offset += (uint64_t) n;
        }
        return 0;
}

int write_whole(int fd, const void *buffer, size_t length) {
        const char *from = buffer;

        while (length > 0) {
                ssize_t n = write(fd, from, length);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -errno;
                from += n;
                length -= (size_t) n;
        }
        return 0;
}

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

/* The directory that a path's last component lies in, open for reading, and that component. */
static int open_parent(int dir_fd, const char *path, int *ret_fd, const char **ret_name) {
        const char *slash = strrchr(path, '/');
        const char *name = slash ? slash + 1 : path;
        char parent[PATH_LIMIT] = ".";
        int fd;

        if (!*name || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
                return -EINVAL;
        if (slash) {
                if ((size_t) (slash - path) >= sizeof parent)
                        return -ENAMETOOLONG;
                memcpy(parent, path, (size_t) (slash - path));
                parent[slash - path] = 0;
                if (!*parent)
                        return -EXDEV;
        }
        fd = open_beneath(dir_fd, parent, O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0)
                return fd;
        *ret_fd = fd;
        *ret_name = name;
        return 0;
}

/* Some file systems cannot sync a directory and say so with EINVAL: nothing more can be done there. */
static int sync_directory_fd(int fd) {
        if (fsync(fd) < 0 && errno != EINVAL)
                return -errno;
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

        rc = open_parent(dir_fd, path, &parent_fd, &name);
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

        rc = open_parent(dir_fd, path, &parent_fd, &name);
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

int make_directory(int dir_fd, const char *path, Reason *reterr) {
        CLEANUP(close_fd) int parent_fd = -1;
        const char *name;
        int rc;

        rc = open_parent(dir_fd, path, &parent_fd, &name);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot make the directory %s", path);
        if (mkdirat(parent_fd, name, 0700) < 0)
                return fail_errno(reterr, -errno, "cannot make the directory %s", path);
        /* As with files: undoes what the umask took. */
        (void) fchmodat(parent_fd, name, 0700, AT_SYMLINK_NOFOLLOW);
        rc = sync_directory_fd(parent_fd);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot make the directory %s: cannot sync the one it is in", path);
        return 0;
}

int sync_directory(int dir_fd, const char *path) {
        CLEANUP(close_fd) int fd = open_beneath(dir_fd, path, O_RDONLY | O_DIRECTORY, 0);

        return fd < 0 ? fd : sync_directory_fd(fd);
}

static void close_directory(DIR **directory) {
        if (*directory)
                closedir(*directory);
}

static int compare_names(const void *a, const void *b) {
        return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Calls see for all names but "." and "..", in any order, until it fails. */
static int walk_directory(int dir_fd, const char *path, int (*see)(void *context, const char *name), void *context) {
        CLEANUP(close_directory) DIR *directory = NULL;
        int fd, rc;

        fd = open_beneath(dir_fd, path, O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0)
                return fd;
        directory = fdopendir(fd);
        if (!directory) {
                rc = -errno;
                close(fd);
                return rc;
        }
        for (;;) {
                struct dirent *entry;

                errno = 0;
                entry = readdir(directory);
                if (!entry && errno)
                        return -errno;
                if (!entry)
                        break;
                if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                        continue;
                rc = see(context, entry->d_name);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static int add_name(void *context, const char *name) {
        return strings_add(context, name);
}

static int add_name_without_dot(void *context, const char *name) {
        return *name == '.' ? 0 : strings_add(context, name);
}

/* Sorted, and without those that begin with a dot unless hidden. */
static int read_names(int dir_fd, const char *path, bool hidden, Strings *ret) {
        CLEANUP(strings_free) Strings names = { 0 };
        int rc = walk_directory(dir_fd, path, hidden ? add_name : add_name_without_dot, &names);

        if (rc < 0)
                return rc;
        if (names.count > 1)
                qsort(names.items, names.count, sizeof *names.items, compare_names);
        *ret = names;
        names = (Strings) { 0 };
        return 0;
}

static int remove_entries(int parent_fd, const char *name, unsigned depth) {
        CLEANUP(strings_free) Strings names = { 0 };
        CLEANUP(close_fd) int fd = -1;
        int rc;

        if (depth > TREE_DEPTH_MAX)
                return -ELOOP;
        rc = read_names(parent_fd, name, true, &names);
        if (rc < 0)
                return rc;
        fd = open_beneath(parent_fd, name, O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0)
                return fd;
        for (size_t i = 0; i < names.count; i++) {
                const char *entry = names.items[i];

                if (unlinkat(fd, entry, 0) == 0 || errno == ENOENT)
                        continue;
                if (errno != EISDIR && errno != EPERM)
                        return -errno;
                rc = remove_entries(fd, entry, depth + 1);
                if (rc < 0)
                        return rc == -ENOTDIR ? -EPERM : rc;
        }
        return unlinkat(parent_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

int remove_tree(int dir_fd, const char *path, Reason *reterr) {
        CLEANUP(close_fd) int parent_fd = -1;
        const char *name;
        int rc;

        rc = open_parent(dir_fd, path, &parent_fd, &name);
        if (rc == 0)
                rc = remove_entries(parent_fd, name, 0);
        if (rc == -ENOENT)
                return 0;
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot delete %s", path);
        return 0;
}

int scan_directory(int dir_fd, const char *path, int (*see)(void *context, const char *name), void *context,
                   Reason *reterr) {
        int rc = walk_directory(dir_fd, path, see, context);

        return rc < 0 ? fail_errno(reterr, rc, "cannot list %s", path) : 0;
}

int list_directory(int dir_fd, const char *path, Strings *ret, Reason *reterr) {
        int rc = read_names(dir_fd, path, false, ret);

        return rc < 0 ? fail_errno(reterr, rc, "cannot list %s", path) : 0;
}

void strings_free(Strings *strings) {
        for (size_t i = 0; i < strings->count; i++)
                free(strings->items[i]);
        free(strings->items);
        *strings = (Strings) { 0 };
}

int strings_add(Strings *strings, const char *text) {
        char *copy;

        /* There is room up to the next power of two. */
        if ((strings->count & (strings->count - 1)) == 0) {
                char **grown = reallocarray(strings->items, strings->count ? strings->count * 2 : 1, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                strings->items = grown;
        }
        copy = strdup(text);
        if (!copy)
                return -ENOMEM;
        strings->items[strings->count++] = copy;
        return 0;
}
