#include "mount/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "log.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define NOTIFY_FD 3
#define PATIENCE_MS 30000

typedef struct Spawn {
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
} Spawn;

static void spawn_clear(Spawn *spawn) {
        posix_spawn_file_actions_destroy(&spawn->actions);
        posix_spawnattr_destroy(&spawn->attributes);
}

/* Returns a positive errno, as posix_spawn(3) does. */
static int prepare(Spawn *spawn, int notify_fd) {
        sigset_t none, all;
        int rc;

        posix_spawn_file_actions_init(&spawn->actions);
        posix_spawnattr_init(&spawn->attributes);
        sigemptyset(&none);
        sigfillset(&all);
        rc = posix_spawn_file_actions_adddup2(&spawn->actions, notify_fd, NOTIFY_FD);
        for (int fd = 0; rc == 0 && fd < NOTIFY_FD; fd++)
                rc = posix_spawn_file_actions_addopen(&spawn->actions, fd, "/dev/null", O_RDWR, 0);
        if (rc == 0)
                rc = posix_spawn_file_actions_addclosefrom_np(&spawn->actions, NOTIFY_FD + 1);
        if (rc == 0)
                rc = posix_spawnattr_setsigmask(&spawn->attributes, &none);
        if (rc == 0)
                rc = posix_spawnattr_setsigdefault(&spawn->attributes, &all);
        if (rc == 0)
                rc = posix_spawnattr_setflags(&spawn->attributes,
                                              POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        return rc;
}

static int start(const char *repository, const char *vm, const char *option, int notify_fd, pid_t *ret) {
        CLEANUP(spawn_clear) Spawn spawn = { 0 };
        const char *argv[] = { "virtbackupfs", "capture", "--notify-fd", "3", option ?: "--", repository, vm, NULL };
        int rc;

        _Static_assert(NOTIFY_FD == 3, "as in argv");
        rc = prepare(&spawn, notify_fd);
        if (rc == 0)
                rc = posix_spawn(ret, "/proc/self/exe", &spawn.actions, &spawn.attributes, (char **) argv, environ);
        return -rc;
}

/* What the capture says: 0 or an errno. */
static int wait_for_word(int fd, int stop_fd) {
        uint64_t deadline = clock_now_ms() + PATIENCE_MS, now;
        int32_t word;

        while ((now = clock_now_ms()) < deadline) {
                struct pollfd fds[] = { { .fd = fd, .events = POLLIN }, { .fd = stop_fd, .events = POLLIN } };
                ssize_t length;

                if (poll(fds, 2, (int) (deadline - now)) < 0 && errno != EINTR)
                        return -errno;
                if (fds[1].revents)
                        return -ECANCELED;
                if (!fds[0].revents)
                        continue;
                length = read(fd, &word, sizeof word);
                if (length < 0 && errno == EINTR)
                        continue;
                if (length != sizeof word)
                        return -EPIPE;
                return -word;
        }
        return -ETIMEDOUT;
}

int launcher_start(const char *repository, const char *vm, const char *option, int stop_fd) {
        CLEANUP(close_fd) int read_end = -1;
        CLEANUP(close_fd) int write_end = -1;
        CLEANUP(close_fd) int process = -1;
        int ends[2], rc;
        pid_t pid;

        if (pipe2(ends, O_CLOEXEC) < 0)
                return -errno;
        read_end = ends[0];
        write_end = ends[1];
        rc = start(repository, vm, option, write_end, &pid);
        if (rc < 0) {
                log_line(LOG_ERR, "%s: cannot start a capture: %s", vm, strerrordesc_np(-rc));
                return -EIO;
        }
        process = pidfd_open(pid, 0);
        close(STEAL_FD(write_end));

        rc = wait_for_word(read_end, stop_fd);
        if (rc == 0 || rc == -EBUSY || rc == -EROFS)
                return rc;
        /* Nobody waits for it any more, and what was reported as failed must not happen later. */
        if (rc == -ETIMEDOUT || rc == -ECANCELED)
                (void) (process >= 0 && pidfd_send_signal(process, SIGTERM, NULL, 0));
        if (rc == -ETIMEDOUT)
                log_line(LOG_ERR, "%s: the capture was not accepted within %d seconds, and is ended", vm,
                         PATIENCE_MS / 1000);
        else if (rc == -EPIPE)
                log_line(LOG_ERR, "%s: the capture ended before it was accepted", vm);
        return -EIO;
}
