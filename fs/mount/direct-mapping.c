#define FUSE_USE_VERSION 314
#include "mount/direct-mapping.h"

#include <fuse3/fuse_lowlevel.h>
#include <linux/fuse.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define ALLOW_MMAP (UINT64_C(1) << 36) /* FUSE_DIRECT_IO_ALLOW_MMAP, of linux/fuse.h from 6.6 on */

static atomic_bool granted;

static struct {
        bool done;       /* the request has come: nothing more to look for */
        uint64_t unique; /* of the request, until it has been answered */
} init;

/* Remembers the first request, where the kernel offers in it what we want. */
static void look_for_init(const void *request, size_t length) {
        struct {
                struct fuse_in_header header;
                struct fuse_init_in init;
        } in;

        init.done = true;
        if (length < sizeof in)
                return; /* a kernel too old to know more than 32 flags sends fewer bytes */
        memcpy(&in, request, sizeof in);
        if (in.header.opcode == FUSE_INIT && (in.init.flags & FUSE_INIT_EXT) && (in.init.flags2 & ALLOW_MMAP >> 32))
                init.unique = in.header.unique;
}

static ssize_t read_request(int fd, void *buffer, size_t size, void *userdata) {
        ssize_t length = read(fd, buffer, size);

        (void) userdata;
        if (length > 0 && !init.done)
                look_for_init(buffer, (size_t) length);
        return length;
}

/* Whether it answers the request remembered, and is not an error. */
static bool is_answer_to_init(const struct iovec *iov, int count) {
        const struct fuse_out_header *header = iov[0].iov_base;

        return count == 2 && iov[0].iov_len == sizeof *header && header->unique == init.unique && header->error == 0 &&
               iov[1].iov_len >= sizeof(struct fuse_init_out);
}

static ssize_t write_answer(int fd, struct iovec *iov, int count, void *userdata) {
        (void) userdata;
        /* libfuse answers it before it starts a second thread. */
        if (init.unique && is_answer_to_init(iov, count)) {
                struct fuse_init_out *out = iov[1].iov_base;

                out->flags |= FUSE_INIT_EXT;
                out->flags2 |= ALLOW_MMAP >> 32;
                init.unique = 0;
                atomic_store(&granted, true);
        }
        return writev(fd, iov, count);
}

int direct_mapping_request(struct fuse_session *session) {
        static const struct fuse_custom_io io = { .writev = write_answer, .read = read_request };

        return fuse_session_custom_io(session, &io, fuse_session_fd(session));
}

bool direct_mapping_granted(void) {
        return atomic_load_explicit(&granted, memory_order_relaxed);
}
