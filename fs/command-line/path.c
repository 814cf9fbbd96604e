#include "command-line/path.h"

#include <errno.h>
#include <string.h>

#include "repository/repository.h"

void path_clear(Path *path) {
        vm_free(path->vm);
        free(path->disk);
        *path = (Path) { 0 };
}

int path_resolve(Repository *repository, const char *text, Path *ret, Reason *reterr) {
        CLEANUP(path_clear) Path path = { 0 };
        CLEANUP(freep) char *words = strdup(text);
        char *vm = words, *point, *disk = NULL;
        size_t length;
        int rc;

        if (!words)
                return fail_oom(reterr);
        /* Shells complete a directory with a slash behind it. */
        for (length = strlen(words); length > 1 && words[length - 1] == '/'; length--)
                words[length - 1] = 0;
        point = strchr(vm, '/');
        if (point) {
                *point++ = 0;
                disk = strchr(point, '/');
        }
        if (disk)
                *disk++ = 0;
        if (!vm_name_is_valid(vm) || (point && !*point) || (disk && (!*disk || strchr(disk, '/'))))
                return fail(reterr, -EINVAL, "%s is no path: it is VM, VM/POINT or VM/POINT/DISK", text);

        rc = vm_open(repository, vm, &path.vm, reterr);
        if (rc < 0)
                return rc;
        if (point) {
                rc = point_resolve(path.vm, point, path.point, reterr);
                if (rc < 0)
                        return rc;
        }
        if (disk) {
                path.disk = strdup(disk);
                if (!path.disk)
                        return fail_oom(reterr);
        }
        *ret = path;
        path = (Path) { 0 };
        return 0;
}

int path_open(const char *repository_path, const char *text, Repository **ret_repository, Path *ret, Reason *reterr) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        int rc = repository_open(repository_path, REPOSITORY_CACHE_DEFAULT, &repository, reterr);

        if (rc == 0)
                rc = path_resolve(repository, text, ret, reterr);
        if (rc == 0)
                *ret_repository = STEAL_PTR(repository);
        return rc;
}
