#include "own-program.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

int own_program(char **ret, Reason *reterr) {
        char path[PATH_MAX];
        ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);

        if (length < 0)
                return fail_errno(reterr, -errno, "cannot find this program");
        path[length] = 0;
        *ret = strdup(access(path, X_OK) == 0 ? path : "/proc/self/exe");
        return *ret ? 0 : fail_oom(reterr);
}
