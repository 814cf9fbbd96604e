#include "export/output.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>

#include "util/bytes.h"
#include "util/cleanup.h"

#define LOOK_INTERVAL 200 /* milliseconds between two looks at whether to go on */
#define WRITE_AT_ONCE (4u << 20)

/* A pipe as another open file, which does not block us and leaves that of others as it is. */
static int open_stdout(Output *output, Reason *reterr) {
        struct stat st;
        int fd;

        if (isatty(STDOUT_FILENO))
                return fail(reterr, -EINVAL, "an archive is not written to a terminal: name a file, or send it to a "
                                             "program");
        output->fd = STDOUT_FILENO;
        output->name = "standard output";
        if (fstat(STDOUT_FILENO, &st) == 0 && S_ISFIFO(st.st_mode)) {
                fd = open("/proc/self/fd/1", O_WRONLY | O_NONBLOCK | O_CLOEXEC);
                if (fd >= 0) {
                        output->fd = fd;
                        output->own_fd = true;
                }
        }
        return 0;
}

static int open_file(const char *target, bool replace, Output *output, Reason *reterr) {
        int rc = partial_open(target, replace, &output->partial, reterr);

        if (rc < 0)
                return rc;
        if (ftruncate(output->partial.fd, 0) < 0)
                return fail_errno(reterr, -errno, "cannot empty %s", output->partial.partial_path);
        output->file = (DirectFile) { output->partial.fd, partial_open_direct(&output->partial) };
        return behind_new(&output->file, target, &output->behind, reterr);
}

int output_open(const char *target, bool replace, const atomic_bool *cancel, Output *ret, Reason *reterr) {
        Output output = { .partial = { .fd = -1 }, .file = { -1, -1 }, .fd = -1, .name = target, .cancel = cancel };
        int rc = strcmp(target, "-") == 0 ? open_stdout(&output, reterr) : open_file(target, replace, &output, reterr);

        if (rc < 0)
                output_clear(&output);
        else
                *ret = output;
        return rc;
}

static int wait_for_room(const Output *output, Reason *reterr) {
        struct pollfd room = { .fd = output->fd, .events = POLLOUT };

        for (;;) {
                if (output->cancel && atomic_load(output->cancel))
                        return fail(reterr, -ECANCELED, "interrupted");
                if (poll(&room, 1, LOOK_INTERVAL) != 0)
                        return 0;
        }
}

static int write_stream(const Output *output, const void *bytes, size_t length, Reason *reterr) {
        const char *from = bytes;

        while (length > 0) {
                int rc = wait_for_room(output, reterr);
                ssize_t n;

                if (rc < 0)
                        return rc;
                n = write(output->fd, from, min_u64(length, WRITE_AT_ONCE));
                if (n < 0 && (errno == EINTR || errno == EAGAIN))
                        continue;
                if (n <= 0)
                        return fail_errno(reterr, n < 0 ? -errno : -ENOSPC, "cannot write %s", output->name);
                from += n;
                length -= (size_t) n;
        }
        return 0;
}

int output_write(Output *output, const void *bytes, size_t length, Reason *reterr) {
        return output->behind ? behind_write(output->behind, bytes, length, reterr)
                              : write_stream(output, bytes, length, reterr);
}

int output_finish(Output *output, Reason *reterr) {
        int rc;

        if (!output->behind)
                return 0;
        rc = behind_finish(output->behind, reterr);
        if (rc < 0)
                return rc;
        if (fsync(output->partial.fd) < 0)
                return fail_errno(reterr, -errno, "cannot sync %s", output->partial.partial_path);
        rc = partial_finish(&output->partial, reterr);
        if (rc == 0)
                partial_clear(&output->partial);
        return rc;
}

void output_clear(Output *output) {
        if (output->behind)
                output->behind = behind_free(output->behind);
        close_fd(&output->file.direct_fd);
        output->file.direct_fd = -1;
        if (output->partial.fd >= 0)
                partial_remove(&output->partial);
        partial_clear(&output->partial);
        if (output->own_fd)
                close(output->fd);
        output->own_fd = false;
}
