#include "util/program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>

#include "util/cleanup.h"

#define PATIENCE_MS 30000
#define POLL_MS 100
#define COMPLAINT_MAX 400 /* bytes of its last words */

static int spawn(const char *const *argv, int output_fd, int complaint_fd, pid_t *ret) {
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t signals;
        int rc;

        posix_spawn_file_actions_init(&actions);
        posix_spawnattr_init(&attributes);
        rc = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
        if (rc == 0)
                rc = posix_spawn_file_actions_adddup2(&actions, output_fd, STDOUT_FILENO);
        if (rc == 0)
                rc = posix_spawn_file_actions_adddup2(&actions, complaint_fd, STDERR_FILENO);
        sigemptyset(&signals);
        posix_spawnattr_setsigmask(&attributes, &signals);
        sigfillset(&signals);
        posix_spawnattr_setsigdefault(&attributes, &signals);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        if (rc == 0)
                rc = posix_spawnp(ret, argv[0], &actions, &attributes, (char *const *) argv, environ);
        posix_spawnattr_destroy(&attributes);
        posix_spawn_file_actions_destroy(&actions);
        return -rc;
}

/* Takes what there is; whether more may come. What does not fit is read and forgotten. */
static bool take(int fd, char *text, size_t limit, size_t *length) {
        char rest[4096];
        bool fits = *length < limit;
        ssize_t n = read(fd, fits ? text + *length : rest, fits ? limit - *length : sizeof rest);

        if (n > 0 && fits)
                *length += (size_t) n;
        return n > 0 || (n < 0 && errno == EINTR);
}

/* Reads both until they end. */
static int collect(int output_fd, char *output, size_t limit, size_t *output_length, int complaint_fd, char *complaint,
                   unsigned patience_ms, const atomic_bool *cancel) {
        struct pollfd fds[2] = { { .fd = output_fd, .events = POLLIN }, { .fd = complaint_fd, .events = POLLIN } };
        size_t complaint_length = 0;

        for (unsigned waited = 0; fds[0].fd >= 0 || fds[1].fd >= 0;) {
                int rc = poll(fds, 2, POLL_MS);

                if (cancel && atomic_load(cancel))
                        return -ECANCELED;
                if (rc < 0 && errno != EINTR)
                        return -errno;
                if (rc <= 0) {
                        waited += POLL_MS;
                        if (waited >= patience_ms)
                                return -ETIMEDOUT;
                        continue;
                }
                if (fds[0].revents && !take(output_fd, output, limit, output_length))
                        fds[0].fd = -1;
                if (fds[1].revents && !take(complaint_fd, complaint, COMPLAINT_MAX, &complaint_length))
                        fds[1].fd = -1;
        }
        return 0;
}

static int await(pid_t pid) {
        int status;

        while (waitpid(pid, &status, 0) < 0)
                if (errno != EINTR)
                        return -errno;
        return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

int program_output(const char *const *argv, size_t limit, const atomic_bool *cancel, char **ret, Reason *reterr) {
        return program_output_within(argv, limit, PATIENCE_MS, cancel, ret, reterr);
}

int program_output_within(const char *const *argv, size_t limit, unsigned patience_ms, const atomic_bool *cancel, char **ret,
                          Reason *reterr) {
        CLEANUP(close_fd) int output_fd = -1, output_end = -1, complaint_fd = -1, complaint_end = -1;
        CLEANUP(freep) char *output = calloc(1, limit + 1);
        char complaint[COMPLAINT_MAX + 1] = "";
        int outputs[2], complaints[2], rc, ended;
        size_t length = 0;
        pid_t pid;

        if (!output)
                return fail_oom(reterr);
        if (pipe2(outputs, O_CLOEXEC) < 0)
                return fail_errno(reterr, -errno, "cannot run %s", argv[0]);
        output_fd = outputs[0];
        output_end = outputs[1];
        if (pipe2(complaints, O_CLOEXEC) < 0)
                return fail_errno(reterr, -errno, "cannot run %s", argv[0]);
        complaint_fd = complaints[0];
        complaint_end = complaints[1];
        rc = spawn(argv, output_end, complaint_end, &pid);
        if (rc < 0)
                return fail_errno(reterr, rc, "cannot run %s", argv[0]);
        close(STEAL_FD(output_end));
        close(STEAL_FD(complaint_end));

        rc = collect(output_fd, output, limit, &length, complaint_fd, complaint, patience_ms, cancel);
        if (rc < 0)
                kill(pid, SIGKILL);
        ended = await(pid);
        if (rc < 0)
                return fail_errno(reterr, rc, "%s did not end", argv[0]);
        if (ended < 0) {
                complaint[strcspn(complaint, "\n")] = 0;
                return fail(reterr, ended, "%s", complaint[0] ? complaint : argv[0]);
        }
        if (length >= limit)
                return fail(reterr, -EFBIG, "%s prints more than can be", argv[0]);
        *ret = STEAL_PTR(output);
        return 0;
}
