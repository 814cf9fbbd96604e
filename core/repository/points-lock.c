#include "repository/points-lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "util/io.h"

#define LOCK_FILE "readers"

static int try_lock(int fd, short type) {
        struct flock whole_file = { .l_type = type, .l_whence = SEEK_SET };

        if (fcntl(fd, F_OFD_SETLK, &whole_file) == 0)
                return 0;
        return errno == EACCES ? -EAGAIN : -errno;
}

int points_lock_share(Vm *vm, int *ret_fd, Reason *reterr) {
        CLEANUP(close_fd) int fd = vm_fd(vm) < 0 ? -1 : open_beneath(vm_fd(vm), LOCK_FILE, O_RDONLY | O_CREAT, 0600);
        int rc = fd >= 0 ? try_lock(fd, F_RDLCK) : 0;

        if (rc == -EAGAIN)
                return fail(reterr, -EBUSY, "%s: its points are being deleted", vm_name(vm));
        *ret_fd = rc == 0 ? STEAL_FD(fd) : -1;
        return 0;
}

int points_lock_take(Vm *vm, int *ret_fd, Reason *reterr) {
        CLEANUP(close_fd) int fd = -1;
        int rc;

        if (vm_fd(vm) < 0) {
                *ret_fd = -1;
                return 0;
        }
        fd = open_beneath(vm_fd(vm), LOCK_FILE, O_RDWR | O_CREAT, 0600);
        if (fd < 0)
                return fail_errno(reterr, fd, "%s: cannot open the lock of its points", vm_name(vm));
        rc = try_lock(fd, F_WRLCK);
        if (rc == -EAGAIN)
                return fail(reterr, -EBUSY, "%s: its points are in use by a recovery, restore, export or import, which has "
                            "to end first ('fuser %s/vms/%s/" LOCK_FILE "' tells which process it is)", vm_name(vm),
                            repository_path(vm_repository(vm)), vm_name(vm));
        if (rc < 0)
                return fail_errno(reterr, rc, "%s: cannot lock its points", vm_name(vm));
        *ret_fd = STEAL_FD(fd);
        return 0;
}
