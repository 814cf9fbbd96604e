#include "restore/in-use.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "util/cleanup.h"

static int fail_busy(const char *path, Reason *reterr) {
        return fail(reterr, -EBUSY, "%s is in use by another program, a running VM maybe", path);
}

int file_check_unlocked(int fd, const char *path, Reason *reterr) {
        struct flock all = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

        if (fcntl(fd, F_OFD_GETLK, &all) == 0 && all.l_type != F_UNLCK)
                return fail_busy(path, reterr);
        return 0;
}

int file_check_unused(const char *path, Reason *reterr) {
        CLEANUP(close_fd) int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);

        if (fd < 0)
                return errno == ETXTBSY ? fail_busy(path, reterr) : fail_errno(reterr, -errno, "cannot write to %s", path);
        /* Who opens it meanwhile has us told, by a signal that does nothing. */
        (void) fcntl(fd, F_SETSIG, SIGURG);
        /* A lease is granted where nobody else has the file open; not every file system knows them, nor may any but the
         * owner have one. */
        if (fcntl(fd, F_SETLEASE, F_WRLCK) < 0 && errno == EAGAIN)
                return fail_busy(path, reterr);
        return file_check_unlocked(fd, path, reterr);
}
