#include "util/directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util/io.h"

#define PATH_LIMIT 4096  /* bytes of a path, NUL included */
#define TREE_DEPTH_MAX 32

int directory_open_parent(int dir_fd, const char *path, int *ret_fd, const char **ret_name) {
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
int sync_directory_fd(int fd) {
        if (fsync(fd) < 0 && errno != EINVAL)
                return -errno;
        return 0;
}

int make_directory(int dir_fd, const char *path, Reason *reterr) {
        CLEANUP(close_fd) int parent_fd = -1;
        const char *name;
        int rc;

        rc = directory_open_parent(dir_fd, path, &parent_fd, &name);
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
        strings_sort(&names);
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

        rc = directory_open_parent(dir_fd, path, &parent_fd, &name);
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
