#include "capture/guardian.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "capture/leftovers.h"
#include "repository/capture-state.h"
#include "repository/point-name.h"
#include "util/timestamp.h"

#define CAPTURE_ID_MAX 64      /* bytes, NUL included */
#define MESSAGE_MAX (64u << 10) /* bytes: a letter and a path or a source */
#define GUARDIAN_PATIENCE_S 60 /* for a hypervisor's daemon that is being restarted */

/* Messages: a letter, then texts that each end with a NUL. */
enum {
        MESSAGE_SCRATCH = 's', /* the scratch directory */
        MESSAGE_SOURCE = 'u',  /* the source */
        MESSAGE_EXPECT = 'e',  /* point, capture */
        MESSAGE_INTERRUPTED = 'i',
        MESSAGE_GOODBYE = 'g',
};

struct Guardian {
        const char *const *argv;
        const char *source, *scratch_directory;
        int lock_fd; /* borrowed */

        pthread_mutex_t lock; /* of all that follows */
        pid_t pid;            /* 0: none runs */
        int socket_fd;
        char point[POINT_NAME_MAX], capture[CAPTURE_ID_MAX]; /* expected; "" before */
        bool interrupted;
};

static int send_message(int fd, char kind, const char *first, const char *second) {
        char message[MESSAGE_MAX];
        int length = snprintf(message, sizeof message, "%c%s%c%s", kind, first ?: "", 0, second ?: "");

        if ((size_t) length + 1 > sizeof message)
                return -ENAMETOOLONG;
        for (;;) {
                if (send(fd, message, (size_t) length + 1, MSG_NOSIGNAL) >= 0)
                        return 0;
                if (errno != EINTR)
                        return -errno;
        }
}

/* Its standard streams are not the capture's, which somebody may wait for; everything else is closed on exec but the
 * two descriptors that it is for. */
static int spawn(const Guardian *guardian, int socket_fd, pid_t *ret) {
        char numbers[2][16];
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        size_t count = 0;
        CLEANUP(freep) char **argv = NULL;
        sigset_t signals;
        int rc;

        while (guardian->argv[count])
                count++;
        argv = calloc(count + 3, sizeof *argv);
        if (!argv)
                return -ENOMEM;
        memcpy(argv, guardian->argv, count * sizeof *argv);
        snprintf(numbers[0], sizeof numbers[0], "%d", socket_fd);
        snprintf(numbers[1], sizeof numbers[1], "%d", guardian->lock_fd);
        argv[count] = numbers[0];
        argv[count + 1] = numbers[1];

        posix_spawn_file_actions_init(&actions);
        posix_spawnattr_init(&attributes);
        rc = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
        for (int fd = STDOUT_FILENO; rc == 0 && fd <= STDERR_FILENO; fd++)
                rc = posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, fd);
        if (rc == 0)
                rc = posix_spawn_file_actions_adddup2(&actions, socket_fd, socket_fd); /* clears close-on-exec */
        if (rc == 0)
                rc = posix_spawn_file_actions_adddup2(&actions, guardian->lock_fd, guardian->lock_fd);
        sigemptyset(&signals);
        posix_spawnattr_setsigmask(&attributes, &signals);
        sigfillset(&signals);
        posix_spawnattr_setsigdefault(&attributes, &signals);
        posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
        if (rc == 0)
                rc = posix_spawn(ret, argv[0], &actions, &attributes, argv, environ);
        posix_spawnattr_destroy(&attributes);
        posix_spawn_file_actions_destroy(&actions);
        return -rc;
}

/* With the lock held. */
static int start_process(Guardian *guardian, Reason *reterr) {
        CLEANUP(close_fd) int ours = -1, theirs = -1;
        int pair[2], rc;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return fail_errno(reterr, -errno, "cannot start the guardian");
        ours = pair[0];
        theirs = pair[1];
        rc = spawn(guardian, theirs, &guardian->pid);
        if (rc < 0) {
                guardian->pid = 0;
                return fail_errno(reterr, rc, "cannot start the guardian");
        }
        guardian->socket_fd = STEAL_FD(ours);
        if (guardian->source)
                (void) send_message(guardian->socket_fd, MESSAGE_SOURCE, guardian->source, NULL);
        if (guardian->scratch_directory)
                (void) send_message(guardian->socket_fd, MESSAGE_SCRATCH, guardian->scratch_directory, NULL);
        if (guardian->point[0])
                (void) send_message(guardian->socket_fd, MESSAGE_EXPECT, guardian->point, guardian->capture);
        if (guardian->interrupted)
                (void) send_message(guardian->socket_fd, MESSAGE_INTERRUPTED, NULL, NULL);
        return 0;
}

int guardian_start(const char *const *argv, const char *source, const char *scratch_directory, int lock_fd, Guardian **ret,
                   Reason *reterr) {
        Guardian *guardian = calloc(1, sizeof *guardian);
        int rc;

        if (!guardian)
                return fail_oom(reterr);
        guardian->argv = argv;
        guardian->source = source;
        guardian->scratch_directory = scratch_directory;
        guardian->lock_fd = lock_fd;
        guardian->socket_fd = -1;
        pthread_mutex_init(&guardian->lock, NULL);
        rc = start_process(guardian, reterr);
        if (rc < 0) {
                pthread_mutex_destroy(&guardian->lock);
                free(guardian);
                return rc;
        }
        *ret = guardian;
        return 0;
}

static void await_process(pid_t pid) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
}

int guardian_check(Guardian *guardian, Reason *reterr) {
        int rc = 0;

        pthread_mutex_lock(&guardian->lock);
        if (guardian->pid == 0 || waitpid(guardian->pid, NULL, WNOHANG) != 0) {
                close_fd(&guardian->socket_fd);
                guardian->socket_fd = -1;
                rc = start_process(guardian, reterr);
        }
        pthread_mutex_unlock(&guardian->lock);
        return rc;
}

int guardian_expect(Guardian *guardian, const char *point, const char *capture, Reason *reterr) {
        int rc;

        pthread_mutex_lock(&guardian->lock);
        snprintf(guardian->point, sizeof guardian->point, "%s", point);
        snprintf(guardian->capture, sizeof guardian->capture, "%s", capture);
        rc = guardian->socket_fd < 0 ? -EPIPE : send_message(guardian->socket_fd, MESSAGE_EXPECT, point, capture);
        pthread_mutex_unlock(&guardian->lock);
        if (rc == -EPIPE || rc == -ECONNRESET)
                return guardian_check(guardian, reterr); /* its successor is told */
        return rc < 0 ? fail_errno(reterr, rc, "cannot reach the guardian") : 0;
}

void guardian_tell_interrupted(Guardian *guardian) {
        pthread_mutex_lock(&guardian->lock);
        guardian->interrupted = true;
        if (guardian->socket_fd >= 0)
                (void) send_message(guardian->socket_fd, MESSAGE_INTERRUPTED, NULL, NULL);
        pthread_mutex_unlock(&guardian->lock);
}

static Guardian *guardian_free(Guardian *guardian) {
        close_fd(&guardian->socket_fd);
        pthread_mutex_destroy(&guardian->lock);
        free(guardian);
        return NULL;
}

Guardian *guardian_dismiss(Guardian *guardian) {
        if (!guardian)
                return NULL;
        if (guardian->pid > 0) {
                (void) send_message(guardian->socket_fd, MESSAGE_GOODBYE, NULL, NULL);
                await_process(guardian->pid);
        }
        return guardian_free(guardian);
}

Guardian *guardian_hand_over(Guardian *guardian) {
        return guardian ? guardian_free(guardian) : NULL;
}

/* What a guardian has been told. */
typedef struct Orders {
        char source[MESSAGE_MAX], scratch_directory[MESSAGE_MAX];
        char point[POINT_NAME_MAX], capture[CAPTURE_ID_MAX];
        bool interrupted;
} Orders;

/* Waits for the capture's end. Whether it said goodbye. */
static bool hear_out(int socket_fd, Orders *orders) {
        char message[MESSAGE_MAX + 1];

        for (;;) {
                ssize_t length = recv(socket_fd, message, sizeof message - 1, 0);
                const char *first = message + 1;

                if (length < 0 && errno == EINTR)
                        continue;
                if (length <= 0)
                        return false;
                message[length] = 0;
                switch (message[0]) {
                case MESSAGE_SOURCE:
                        snprintf(orders->source, sizeof orders->source, "%s", first);
                        break;
                case MESSAGE_SCRATCH:
                        snprintf(orders->scratch_directory, sizeof orders->scratch_directory, "%s", first);
                        break;
                case MESSAGE_EXPECT:
                        snprintf(orders->point, sizeof orders->point, "%.*s", (int) sizeof orders->point - 1, first);
                        first += strlen(first) + 1;
                        if (first < message + length)
                                snprintf(orders->capture, sizeof orders->capture, "%.*s", CAPTURE_ID_MAX - 1, first);
                        break;
                case MESSAGE_INTERRUPTED:
                        orders->interrupted = true;
                        break;
                case MESSAGE_GOODBYE:
                        return true;
                }
        }
}

static int end_job_now(Vm *vm, const SourceOwner *owner, Reason *reterr) {
        CLEANUP(source_freep) Source *source = NULL;
        int rc;

        rc = source_open(owner, &source, reterr);
        if (rc < 0)
                return rc;
        rc = source_end_leftovers(source, reterr);
        if (rc < 0)
                return rc;
        /* A checkpoint too many is no harm: the next capture deletes it. */
        (void) leftovers_delete_checkpoints(vm, source, NULL);
        return 0;
}

/* Whether another try may end better: the hypervisor is away rather than of another mind. */
static bool may_pass(int rc) {
        return rc != -EBUSY && rc != -EINVAL && rc != -ENOENT && rc != -ESTALE && rc != -EHOSTDOWN;
}

static int end_job(Vm *vm, const Orders *orders, Reason *reterr) {
        SourceOwner owner = {
                .source = orders->source[0] ? orders->source : vm_source(vm),
                .vm = vm_name(vm),
                .vm_uuid = vm_uuid(vm),
                .repository = repository_uuid(vm_repository(vm)),
                .scratch_directory = orders->scratch_directory[0] ? orders->scratch_directory : NULL,
        };
        int rc;

        if (!owner.source)
                return fail(reterr, -EROFS, "%s is not registered", vm_name(vm));
        for (int tries = 0;; tries++) {
                rc = end_job_now(vm, &owner, reterr);
                if (rc == 0 || !may_pass(rc) || tries == GUARDIAN_PATIENCE_S)
                        return rc;
                (void) nanosleep(&(struct timespec) { .tv_sec = 1 }, NULL);
        }
}

/* What the capture would have written, had it lived. */
static int write_state(Vm *vm, const char *point, const char *error, Reason *reterr) {
        CaptureState state = { 0 };
        int rc;

        rc = capture_state_read(vm, &state, reterr);
        if (rc == 0 && state.phase == CAPTURE_RUNNING) {
                state.phase = point ? CAPTURE_IDLE : CAPTURE_FAILED;
                state.finished = timestamp_now();
                free(state.last);
                free(state.error);
                state.last = point ? strdup(point) : NULL;
                state.error = point ? NULL : strdup(error);
                rc = capture_state_write(vm, &state, reterr);
        }
        capture_state_clear(&state);
        return rc;
}

int guardian_main(Vm *vm, int socket_fd, int lock_fd) {
        const int politely[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE };
        Reason reason = REASON_INIT, error = REASON_INIT;
        Orders orders = { 0 };
        const char *end;
        bool committed;

        for (size_t i = 0; i < sizeof politely / sizeof *politely; i++)
                signal(politely[i], SIG_IGN);
        (void) fcntl(socket_fd, F_SETFD, FD_CLOEXEC);
        (void) fcntl(lock_fd, F_SETFD, FD_CLOEXEC);
        if (hear_out(socket_fd, &orders))
                return EXIT_SUCCESS;

        committed = orders.point[0] && leftovers_committed(vm, orders.point, orders.capture);
        end = orders.interrupted ? "interrupted" : "the capture process was killed";
        fail(&error, 0, "%s", end);
        if (end_job(vm, &orders, &reason) < 0)
                fail(&error, 0, "%s, and its job could not be ended: %.*s", end, REASON_MAX - 80, reason.text);
        (void) leftovers_remove_data(vm, NULL);
        return write_state(vm, committed ? orders.point : NULL, error.text, NULL) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
