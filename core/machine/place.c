#include "machine/place.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "util/text.h"

#define DEFAULT_POOL "default"
#define SYSTEM_DIRECTORY "/var/lib/libvirt/images"

static int make_directories(char *path) {
        for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
                *slash = 0;
                (void) mkdir(path, 0711);
                *slash = '/';
        }
        return mkdir(path, 0711) < 0 && errno != EEXIST ? -errno : 0;
}

static int own_directory(const Hypervisor *hypervisor, char **ret, Reason *reterr) {
        const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
        CLEANUP(freep) char *path = NULL;
        int rc;

        if (!hypervisor_is_session(hypervisor))
                rc = text_format(&path, "%s", SYSTEM_DIRECTORY);
        else if (data && data[0] == '/')
                rc = text_format(&path, "%s/libvirt/images", data);
        else
                rc = text_format(&path, "%s/.local/share/libvirt/images", home ?: "");
        if (rc < 0)
                return fail_oom(reterr);
        rc = make_directories(path);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot make %s", path);
        *ret = STEAL_PTR(path);
        return 0;
}

int place_resolve(Hypervisor *hypervisor, const char *word, char **ret, Reason *reterr) {
        CLEANUP(freep) char *path = NULL;
        char *absolute;
        struct stat st;
        int rc = 0;

        if (word && strchr(word, '/'))
                path = strdup(word);
        else if (word)
                rc = hypervisor_pool_directory(hypervisor, word, &path, reterr);
        else if (hypervisor_pool_directory(hypervisor, DEFAULT_POOL, &path, NULL) < 0)
                rc = own_directory(hypervisor, &path, reterr);
        if (rc < 0)
                return rc;
        if (!path)
                return fail_oom(reterr);
        absolute = realpath(path, NULL);
        if (!absolute)
                return fail_errno(reterr, -errno, "directory %s", path);
        if (stat(absolute, &st) < 0 || !S_ISDIR(st.st_mode)) {
                free(absolute);
                return fail_errno(reterr, -ENOTDIR, "directory %s", path);
        }
        *ret = absolute;
        return 0;
}

int place_check_room(const char *directory, uint64_t bytes, Reason *reterr) {
        struct statvfs st;
        uint64_t room;

        if (statvfs(directory, &st) < 0)
                return fail_errno(reterr, -errno, "cannot look at %s", directory);
        if (__builtin_mul_overflow((uint64_t) st.f_bavail, (uint64_t) st.f_frsize, &room) || room >= bytes)
                return 0;
        return fail(reterr, -ENOSPC, "%s has no room for the disks: they take %llu MiB, and %llu MiB are free", directory,
                    (unsigned long long) (bytes >> 20), (unsigned long long) (room >> 20));
}
