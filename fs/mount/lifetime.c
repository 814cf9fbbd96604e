#define FUSE_USE_VERSION 314
#include "mount/lifetime.h"

#include <errno.h>
#include <fcntl.h>
#include <fuse3/fuse_lowlevel.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "log.h"
#include "mount/background.h"
#include "mount/mountinfo.h"
#include "util/cleanup.h"

#define READ_AHEAD_KB 1024 /* as much as one request carries */
#define LOOK_AGAIN_MS 200
#define KNOCK_AGAIN_MS 20

static void on_knock(int signal_number) {
        (void) signal_number; /* it interrupts a waiting call, which is all */
}

int lifetime_init(Lifetime *lifetime, bool foreground, Reason *reterr) {
        const int ends[] = { SIGTERM, SIGINT, SIGHUP };
        struct sigaction knock = { .sa_handler = on_knock }, old;
        sigset_t set;

        sigemptyset(&set);
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
                if (!foreground || sigaction(ends[i], NULL, &old) < 0 || old.sa_handler != SIG_IGN)
                        sigaddset(&set, ends[i]);
        sigaction(SIGUSR1, &knock, NULL);
        signal(SIGPIPE, SIG_IGN);
        pthread_sigmask(SIG_BLOCK, &set, NULL);
        lifetime->signals = signalfd(-1, &set, SFD_CLOEXEC);
        lifetime->stop = eventfd(0, EFD_CLOEXEC);
        lifetime->loop_ended = eventfd(0, EFD_CLOEXEC);
        if (lifetime->signals < 0 || lifetime->stop < 0 || lifetime->loop_ended < 0)
                return fail_errno(reterr, -errno, "cannot watch for signals");
        return 0;
}

void lifetime_clear(Lifetime *lifetime) {
        close_fd(&lifetime->signals);
        close_fd(&lifetime->stop);
        close_fd(&lifetime->loop_ended);
}

static void raise_event(int fd) {
        uint64_t one = 1;

        (void) !write(fd, &one, sizeof one);
}

/* Asks the root for its attributes, past the kernel's cache. */
static int greet(Lifetime *lifetime) {
        struct statx st;

        if (statx(AT_FDCWD, lifetime->mountpoint, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &st) < 0)
                return fail_errno(&lifetime->reason, -errno, "the mount on %s does not answer", lifetime->mountpoint);
        lifetime->device = makedev(st.stx_dev_major, st.stx_dev_minor);
        return 0;
}

/* The kernel's 128 KiB hold buffered readers back more than anything else does. Root alone may raise it. */
static void raise_read_ahead(dev_t device) {
        CLEANUP(close_fd) int fd = -1;
        char path[64], number[16];

        snprintf(path, sizeof path, "/sys/class/bdi/%u:%u/read_ahead_kb", major(device), minor(device));
        snprintf(number, sizeof number, "%d\n", READ_AHEAD_KB);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd >= 0)
                (void) !write(fd, number, strlen(number));
}

/* Whether the signal that came is to end the mount. A reader that is a VM would lose its disk. */
static bool ends_it(const Lifetime *lifetime) {
        struct signalfd_siginfo signal;

        if (!lifetime->hold || read(lifetime->signals, &signal, sizeof signal) != sizeof signal ||
            atomic_load(lifetime->open_files) == 0)
                return true;
        log_line(LOG_WARNING, "%s: the mount stays, though process %u asked it to end: %s reads from it",
                 lifetime->mountpoint, signal.ssi_pid, lifetime->hold);
        return false;
}

/* Returns when the mount is to end, or has ended by itself. */
static void wait_for_end(Lifetime *lifetime) {
        CLEANUP(close_fd) int mounts = mountinfo_open();
        bool watch_mounts = mounts >= 0 && mountinfo_has(mounts, lifetime->device);

        for (;;) {
                struct pollfd fds[] = {
                        { .fd = lifetime->signals, .events = POLLIN },
                        { .fd = lifetime->loop_ended, .events = POLLIN },
                        { .fd = watch_mounts ? mounts : -1, .events = POLLPRI },
                };

                if (poll(fds, 3, lifetime->lost ? LOOK_AGAIN_MS : -1) < 0 && errno != EINTR)
                        return;
                if (fds[1].revents || (fds[0].revents && ends_it(lifetime)))
                        return;
                if (watch_mounts && !mountinfo_has(mounts, lifetime->device)) {
                        lifetime->lost = true;
                        if (atomic_load(lifetime->open_files) == 0)
                                return;
                } else
                        lifetime->lost = false;
        }
}

/* libfuse's loop waits on a semaphore that a signal interrupts; one that comes just before that is not noticed, hence the
 * repeating. */
static void end_loop(Lifetime *lifetime) {
        struct pollfd ended = { .fd = lifetime->loop_ended, .events = POLLIN };

        raise_event(lifetime->stop);
        fuse_session_exit(lifetime->session);
        while (poll(&ended, 1, 0) == 0) {
                pthread_kill(lifetime->loop, SIGUSR1);
                (void) poll(&ended, 1, KNOCK_AGAIN_MS);
        }
}

static void *live(void *argument) {
        Lifetime *lifetime = argument;

        if (greet(lifetime) == 0) {
                lifetime->answered = true;
                raise_read_ahead(lifetime->device);
                if (lifetime->ready_fd >= 0)
                        background_ready(STEAL_FD(lifetime->ready_fd));
                wait_for_end(lifetime);
        }
        end_loop(lifetime);
        return NULL;
}

int lifetime_begin(Lifetime *lifetime, Reason *reterr) {
        int rc = -pthread_create(&lifetime->thread, NULL, live, lifetime);

        return rc < 0 ? fail_errno(reterr, rc, "cannot start a thread") : 0;
}

void lifetime_end(Lifetime *lifetime) {
        raise_event(lifetime->loop_ended);
        pthread_join(lifetime->thread, NULL);
}
