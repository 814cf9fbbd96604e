#include "repository/capture-lock.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "util/io.h"

#define LOCK_FILE "lock"

static bool cannot_write(int rc) {
        return rc == -EROFS || rc == -EACCES || rc == -EPERM;
}

int capture_lock_take(Vm *vm, int *ret_fd, Reason *reterr) {
        struct flock whole_file = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        CLEANUP(close_fd) int fd = -1;

        if (vm_fd(vm) < 0)
                return fail(reterr, -EROFS, "%s: what other tools have stored is only read", vm_name(vm));
        fd = open_beneath(vm_fd(vm), LOCK_FILE, O_RDWR | O_CREAT, 0600);
        if (cannot_write(fd))
                return fail(reterr, -EROFS, "%s: the repository cannot be written to: %s", vm_name(vm),
                            strerrordesc_np(-fd));
        if (fd < 0)
                return fail_errno(reterr, fd, "%s: cannot open the lock", vm_name(vm));
        if (fcntl(fd, F_OFD_SETLK, &whole_file) < 0) {
                int rc = -errno;

                if (rc == -EAGAIN || rc == -EACCES)
                        return fail(reterr, -EBUSY, "%s: a capture of this VM is running", vm_name(vm));
                return fail_errno(reterr, rc, "%s: cannot lock", vm_name(vm));
        }
        *ret_fd = STEAL_FD(fd);
        return 0;
}

int capture_lock_is_held(Vm *vm) {
        struct flock whole_file = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        CLEANUP(close_fd) int fd = -1;

        if (vm_fd(vm) < 0)
                return 0;
        /* For a question a descriptor to read is enough, so that those may ask who cannot lock. */
        fd = open_beneath(vm_fd(vm), LOCK_FILE, O_RDONLY, 0);
        if (fd == -ENOENT)
                return 0;
        if (fd < 0)
                return fd;
        if (fcntl(fd, F_OFD_GETLK, &whole_file) < 0)
                return -errno;
        return whole_file.l_type != F_UNLCK;
}
