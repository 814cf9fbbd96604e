#include "files/place.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#include "mount/mountinfo.h"
#include "util/cleanup.h"
#include "util/program.h"
#include "util/text.h"

#define OWN ".virtbackupfs"
#define PATIENCE_MS 10000 /* until a program that was serving a file system has ended */
#define INTERVAL_MS 50

struct FilesPlace {
        char *path, *tree;
        int lock; /* of a place that is watched; or -1 */
};

FilesPlace *files_place_free(FilesPlace *place) {
        close_fd(&place->lock);
        free(place->path);
        free(place->tree);
        free(place);
        return NULL;
}
DEFINE_CLEANUP(FilesPlace, files_place_free)

const char *files_place_path(const FilesPlace *place) {
        return place->path;
}

const char *files_place_tree(const FilesPlace *place) {
        return place->tree;
}

static char *join(const char *directory, const char *name) {
        char *path;

        return text_format(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

static bool has(const char *directory, const char *name) {
        CLEANUP(freep) char *path = join(directory, name);
        struct stat st;

        return path && lstat(path, &st) == 0;
}

/* ---- taking down ---- */

static int unmount_once(const char *path, Reason *reterr) {
        const char *const argv[] = { "fusermount3", "-u", "--", path, NULL };
        CLEANUP(freep) char *output = NULL;

        if (geteuid() != 0)
                return program_output(argv, 4096, NULL, &output, reterr);
        return umount2(path, UMOUNT_NOFOLLOW) < 0 ? fail_errno(reterr, -errno, "cannot unmount %s", path) : 0;
}

static bool is_mounted(const char *path) {
        CLEANUP(strings_free) Strings mounts = { 0 };

        if (mountinfo_below(path, &mounts) < 0)
                return true;
        for (size_t i = 0; i < mounts.count; i++)
                if (strcmp(mounts.items[i], path) == 0)
                        return true;
        return false;
}

/* Whoever served a file system from the tree may take a moment to let it go. */
static int unmount(const char *path, Reason *reterr) {
        const struct timespec interval = { .tv_nsec = INTERVAL_MS * 1000000L };
        Reason reason = REASON_INIT;
        int rc = unmount_once(path, &reason);

        for (int waited = 0; rc < 0 && waited < PATIENCE_MS && is_mounted(path); waited += INTERVAL_MS) {
                nanosleep(&interval, NULL);
                rc = unmount_once(path, &reason);
        }
        if (rc < 0 && is_mounted(path))
                return fail(reterr, -EBUSY, "%s: %s: what uses it has to end first (fuser -vm tells)", path, reason.text);
        return 0;
}

static int unmount_all(const char *directory, Reason *reterr) {
        CLEANUP(strings_free) Strings mounts = { 0 };
        int rc = mountinfo_below(directory, &mounts);

        if (rc < 0)
                return fail_errno(reterr, rc, "cannot tell what is mounted");
        for (size_t i = mounts.count; rc >= 0 && i-- > 0;)
                if (strcmp(mounts.items[i], directory) != 0)
                        rc = unmount(mounts.items[i], reterr);
        return rc;
}

static void remove_own(const char *directory, const char *name) {
        CLEANUP(freep) char *path = join(directory, name);

        if (path)
                (void) rmdir(path);
}

/* Only empty directories go: whatever else is there is not ours. */
static void remove_directories(const char *directory) {
        bool made = has(directory, OWN "/made");
        DIR *stream = opendir(directory);
        struct dirent *entry;

        while (stream && (entry = readdir(stream)))
                if (entry->d_name[0] != '.')
                        remove_own(directory, entry->d_name);
        if (stream)
                closedir(stream);
        remove_own(directory, OWN "/tree");
        remove_own(directory, OWN "/made");
        remove_own(directory, OWN "/watched");
        remove_own(directory, OWN);
        if (made)
                (void) rmdir(directory);
}

static int take_down(const char *path, Reason *reterr) {
        int rc = unmount_all(path, reterr);

        if (rc >= 0)
                remove_directories(path);
        return rc;
}

int files_place_end(const char *directory, Reason *reterr) {
        CLEANUP(freep) char *path = realpath(directory, NULL);

        if (!path)
                return fail_errno(reterr, -errno, "%s", directory);
        if (!has(path, OWN))
                return fail(reterr, -EINVAL, "%s: no files of a point are shown there", directory);
        return take_down(path, reterr);
}

/* ---- making ---- */

/* Whether what is there serves nobody any more: who watched it has died, or the tree has. */
static bool is_left_over(const char *path) {
        CLEANUP(close_fd) int fd = -1;
        CLEANUP(freep) char *own = join(path, OWN);
        CLEANUP(freep) char *tree = join(path, OWN "/tree");
        struct stat st;

        if (!own || !tree)
                return false;
        if (!is_mounted(tree) || stat(tree, &st) < 0)
                return true;
        if (!has(path, OWN "/watched"))
                return false;
        fd = open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
}

static int check_empty(const char *path, Reason *reterr) {
        DIR *stream = opendir(path);
        struct dirent *entry;
        bool empty = true;

        if (!stream)
                return fail_errno(reterr, -errno, "%s", path);
        while ((entry = readdir(stream)))
                empty &= strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
        closedir(stream);
        return empty ? 0 : fail(reterr, -ENOTEMPTY, "%s is not empty", path);
}

static int make(const char *directory, const char *name, Reason *reterr) {
        CLEANUP(freep) char *path = join(directory, name);

        if (!path)
                return fail_oom(reterr);
        return mkdir(path, 0700) < 0 ? fail_errno(reterr, -errno, "cannot make %s", path) : 0;
}

static int make_own(FilesPlace *place, bool made, bool watched, Reason *reterr) {
        CLEANUP(freep) char *own = join(place->path, OWN);
        int rc = make(place->path, OWN, reterr);

        if (rc >= 0)
                rc = make(place->path, OWN "/tree", reterr);
        if (rc >= 0 && made)
                rc = make(place->path, OWN "/made", reterr);
        if (rc >= 0 && watched)
                rc = make(place->path, OWN "/watched", reterr);
        place->tree = join(place->path, OWN "/tree");
        if (rc >= 0 && (!own || !place->tree))
                return fail_oom(reterr);
        if (rc < 0 || !watched)
                return rc;
        place->lock = open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (place->lock < 0 || flock(place->lock, LOCK_EX | LOCK_NB) < 0)
                return fail_errno(reterr, -errno, "cannot lock %s", own);
        return 0;
}

int files_place_open(const char *directory, bool watched, FilesPlace **ret, bool *ret_cleared, Reason *reterr) {
        CLEANUP(files_place_freep) FilesPlace *place = calloc(1, sizeof *place);
        bool made = mkdir(directory, 0700) == 0, cleared = false;
        int rc;

        if (!place)
                return fail_oom(reterr);
        place->lock = -1;
        if (!made && errno != EEXIST)
                return fail_errno(reterr, -errno, "cannot make %s", directory);
        place->path = realpath(directory, NULL);
        if (!place->path)
                return fail_errno(reterr, -errno, "%s", directory);
        if (has(place->path, OWN)) {
                if (!is_left_over(place->path))
                        return fail(reterr, -EEXIST, "%s shows files already: virtbackupfs files --unmount %s ends that",
                                    directory, directory);
                made = has(place->path, OWN "/made");
                rc = take_down(place->path, reterr);
                if (rc < 0)
                        return rc;
                cleared = true;
                if (made && mkdir(place->path, 0700) < 0 && errno != EEXIST)
                        return fail_errno(reterr, -errno, "cannot make %s", directory);
        }
        rc = check_empty(place->path, reterr);
        if (rc >= 0)
                rc = make_own(place, made, watched, reterr);
        if (rc < 0)
                return rc;
        *ret_cleared = cleared;
        *ret = STEAL_PTR(place);
        return 0;
}

int files_place_add(FilesPlace *place, const char *name, char **ret, Reason *reterr) {
        CLEANUP(freep) char *path = join(place->path, name);

        if (!path)
                return fail_oom(reterr);
        if (mkdir(path, 0700) < 0)
                return fail_errno(reterr, -errno, "cannot make %s", path);
        *ret = STEAL_PTR(path);
        return 0;
}
