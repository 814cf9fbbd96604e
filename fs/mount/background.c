#include "mount/background.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "command-line/command.h"
#include "log.h"
#include "util/cleanup.h"

static int wait_for_child(pid_t child, int fd) {
        ssize_t length;
        char byte;
        int status;

        do
                length = read(fd, &byte, 1);
        while (length < 0 && errno == EINTR);
        if (length == 1)
                return STATUS_DONE;
        while (waitpid(child, &status, 0) < 0)
                if (errno != EINTR)
                        return STATUS_FAILED;
        if (WIFSIGNALED(status)) {
                Reason reason;

                fail(&reason, -EIO, "the mount's process was ended by signal %d (%s)", WTERMSIG(status),
                     strsignal(WTERMSIG(status)));
                return command_failed(&reason);
        }
        /* Ended by a signal of its own accord before it was ready: not mounted either. */
        return WEXITSTATUS(status) ? WEXITSTATUS(status) : STATUS_FAILED;
}

int background_start(int *ret_fd, int *ret_status) {
        CLEANUP(close_fd) int read_end = -1;
        CLEANUP(close_fd) int write_end = -1;
        int ends[2];
        pid_t child;

        closefrom(STDERR_FILENO + 1); /* what a shell or a script has open (a lock, a pipe) is not ours to keep */
        if (pipe2(ends, O_CLOEXEC) < 0)
                return -errno;
        read_end = ends[0];
        write_end = ends[1];
        fflush(NULL);
        child = fork();
        if (child < 0)
                return -errno;
        if (child == 0) {
                *ret_fd = STEAL_FD(write_end);
                return 0;
        }
        close(STEAL_FD(write_end));
        *ret_status = wait_for_child(child, read_end);
        return 1;
}

void background_ready(int fd) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);

        (void) setsid();
        (void) !chdir("/");
        log_to_syslog();
        for (int stream = 0; null >= 0 && stream <= 2; stream++)
                if (stream != null)
                        dup2(null, stream);
        if (null > 2)
                close(null);
        (void) !write(fd, "", 1);
        close(fd);
}
