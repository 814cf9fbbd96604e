#include "own-program.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

int own_program(char ret[static PATH_MAX], Reason *reterr) {
        ssize_t length = readlink("/proc/self/exe", ret, PATH_MAX - 1);

        if (length < 0)
                return fail_errno(reterr, -errno, "cannot find this program");
        ret[length] = 0;
        if (access(ret, X_OK) < 0)
                snprintf(ret, PATH_MAX, "/proc/self/exe");
        return 0;
}
