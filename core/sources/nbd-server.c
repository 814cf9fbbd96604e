#include "sources/nbd-server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#define BACKLOG 64
#define PASSED_FD 3 /* as socket activation has it */
#define WORDS_MAX 400
#define END_WAIT_MS 2000 /* how long one that broke a connection may take to end */

struct NbdServer {
        pid_t pid;   /* 0: has ended and been waited for */
        int words_fd; /* its standard error */
        char *socket_path;
        char words[WORDS_MAX + 1];
};

static int listen_on(const char *path, int *ret, Reason *reterr) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        CLEANUP(close_fd) int fd = -1;

        if (strlen(path) >= sizeof address.sun_path)
                return fail(reterr, -ENAMETOOLONG, "%s is too long for a socket's path", path);
        strcpy(address.sun_path, path);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || bind(fd, (struct sockaddr *) &address, sizeof address) < 0 || listen(fd, BACKLOG) < 0)
                return fail_errno(reterr, -errno, "cannot make the socket %s", path);
        *ret = STEAL_FD(fd);
        return 0;
}

/* The environment with what socket activation needs; number is "LISTEN_PID=…", borrowed. NULL without memory. */
static char **make_environment(char *number) {
        static const char fds[] = "LISTEN_FDS=1";
        size_t count = 0, kept = 0;
        char **variables;

        while (environ[count])
                count++;
        variables = calloc(count + 3, sizeof *variables);
        if (!variables)
                return NULL;
        for (size_t i = 0; i < count; i++)
                if (strncmp(environ[i], "LISTEN_", 7) != 0)
                        variables[kept++] = environ[i];
        variables[kept++] = (char *) fds;
        variables[kept] = number;
        return variables;
}

/* Without anything that another thread may hold a lock of: this process is a copy of one thread alone. */
static void write_number(char *to, pid_t number) {
        char digits[16];
        size_t count = 0;

        do {
                digits[count++] = (char) ('0' + number % 10);
                number /= 10;
        } while (number > 0);
        while (count > 0)
                *to++ = digits[--count];
        *to = 0;
}

static void __attribute__((noreturn)) become(const char *const *argv, char *const *variables, char *digits, pid_t parent,
                                             int listen_fd, int words_fd) {
        int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        sigset_t none;

        sigemptyset(&none);
        /* Away from the numbers that are about to be given out; the copies are closed on exec. */
        listen_fd = fcntl(listen_fd, F_DUPFD_CLOEXEC, PASSED_FD + 1);
        words_fd = fcntl(words_fd, F_DUPFD_CLOEXEC, PASSED_FD + 1);
        if (null_fd < 0 || listen_fd < 0 || words_fd < 0 || dup2(null_fd, STDIN_FILENO) < 0 ||
            dup2(null_fd, STDOUT_FILENO) < 0 || dup2(words_fd, STDERR_FILENO) < 0 || dup2(listen_fd, PASSED_FD) < 0 ||
            prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent || sigprocmask(SIG_SETMASK, &none, NULL) < 0)
                _exit(127);
        write_number(digits, getpid());
        execvpe(argv[0], (char *const *) argv, variables);
        _exit(127);
}

static int start(const char *const *argv, NbdServer *server, int listen_fd, Reason *reterr) {
        CLEANUP(close_fd) int words_end = -1;
        CLEANUP(freep) char **variables = NULL;
        char number[32] = "LISTEN_PID=";
        pid_t parent = getpid();
        int ends[2];

        if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
                return fail_errno(reterr, -errno, "cannot start %s", argv[0]);
        server->words_fd = ends[0];
        words_end = ends[1];
        variables = make_environment(number);
        if (!variables)
                return fail_oom(reterr);
        server->pid = fork();
        if (server->pid == 0)
                become(argv, variables, number + strlen(number), parent, listen_fd, words_end);
        if (server->pid < 0) {
                int rc = -errno;

                server->pid = 0;
                return fail_errno(reterr, rc, "cannot start %s", argv[0]);
        }
        return 0;
}

int nbd_server_start(const char *const *argv, const char *socket_path, NbdServer **ret, Reason *reterr) {
        CLEANUP(nbd_server_stopp) NbdServer *server = calloc(1, sizeof *server);
        CLEANUP(close_fd) int listen_fd = -1;
        int rc;

        if (!server)
                return fail_oom(reterr);
        server->words_fd = -1;
        rc = listen_on(socket_path, &listen_fd, reterr);
        if (rc < 0)
                return rc;
        server->socket_path = strdup(socket_path);
        if (!server->socket_path)
                return fail_oom(reterr);
        rc = start(argv, server, listen_fd, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(server);
        return 0;
}

/* The first line of what it said. */
static void hear(NbdServer *server) {
        ssize_t n = read(server->words_fd, server->words, WORDS_MAX);

        if (n > 0)
                server->words[n] = 0;
        server->words[strcspn(server->words, "\n")] = 0;
}

static bool has_ended(NbdServer *server) {
        if (server->pid > 0 && waitpid(server->pid, NULL, WNOHANG) == server->pid)
                server->pid = 0;
        return server->pid == 0;
}

int nbd_server_check(NbdServer *server, Reason *reterr) {
        const struct timespec pause = { .tv_nsec = 10000000 };

        for (int waited = 0; !has_ended(server) && waited < END_WAIT_MS; waited += 10)
                (void) nanosleep(&pause, NULL);
        if (server->pid > 0)
                return 0;
        hear(server);
        return fail(reterr, -ECHILD, "%s", server->words[0] ? server->words : "the NBD server has ended");
}

NbdServer *nbd_server_stop(NbdServer *server) {
        if (server->pid > 0) {
                kill(server->pid, SIGKILL);
                while (waitpid(server->pid, NULL, 0) < 0 && errno == EINTR)
                        ;
        }
        if (server->words_fd >= 0)
                close(server->words_fd);
        if (server->socket_path)
                unlink(server->socket_path);
        free(server->socket_path);
        free(server);
        return NULL;
}
