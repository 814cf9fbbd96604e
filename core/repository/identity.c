#include "repository/identity.h"

#include <errno.h>
#include <fcntl.h>

Identity identity_of(const struct stat *st) {
        return (Identity) { st->st_dev, st->st_ino, (uint64_t) st->st_size, st->st_mtim, st->st_ctim };
}

int identity_of_file(int dir_fd, const char *path, Identity *ret) {
        struct stat st;

        if (fstatat(dir_fd, path, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        *ret = identity_of(&st);
        return 0;
}

static bool is_same_moment(struct timespec a, struct timespec b) {
        return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

bool identity_is_same(const Identity *a, const Identity *b) {
        return a->device == b->device && a->inode == b->inode && a->size == b->size &&
               is_same_moment(a->modified, b->modified) && is_same_moment(a->changed, b->changed);
}
