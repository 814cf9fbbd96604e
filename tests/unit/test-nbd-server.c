#include "sources/nbd-server.h"

#include <errno.h>
#include <signal.h>
#include <sys/wait.h>

#include "sources/nbd-reader.h"
#include "temporary.h"
#include "unit.h"

static char image[96], path[96];

static int start(const char *served, NbdServer **ret, Reason *reason) {
        const char *const argv[] = { "qemu-nbd", "--read-only", "--persistent", "--format=raw", "--export-name=disk", served,
                                     NULL };

        *reason = REASON_INIT;
        return nbd_server_start(argv, path, ret, reason);
}

static int connect_to(SourceReader **ret, Reason *reason) {
        return nbd_reader_open(&(NbdAddress) { .socket_path = path, .export_name = "disk" }, NULL, ret, reason);
}

static void what_it_serves_can_be_read_at_once(void) {
        CLEANUP(nbd_server_stopp) NbdServer *server = NULL;
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        char buffer[6];
        Reason reason;

        CHECK_INT(start(image, &server, &reason), 0);
        CHECK_INT(connect_to(&reader, &reason), 0);
        CHECK_INT(reader->size, 1 << 20);
        CHECK_INT(source_read(reader, buffer, 6, 4096, &reason), 0);
        CHECK(memcmp(buffer, "marked", 6) == 0);
        CHECK_INT(nbd_server_start((const char *const[]) { "true", NULL }, path, &server, &reason), -EADDRINUSE);
}

static void one_that_cannot_serve_says_why(void) {
        CLEANUP(nbd_server_stopp) NbdServer *server = NULL, *missing = NULL;
        SourceReader *reader;
        Reason reason;

        CHECK_INT(start("/no/such/image", &server, &reason), 0);
        CHECK(connect_to(&reader, &reason) < 0);
        CHECK_INT(nbd_server_check(server, &reason), -ECHILD);
        CHECK_SAYS(reason, "/no/such/image");
        server = nbd_server_stop(server);
        CHECK(access(path, F_OK) < 0);

        CHECK_INT(nbd_server_start((const char *const[]) { "/no/such/program", NULL }, path, &missing, &reason), 0);
        CHECK(connect_to(&reader, &reason) < 0);
        CHECK_INT(nbd_server_check(missing, &reason), -ECHILD);
}

static void it_dies_with_who_started_it(void) {
        int pipe_ends[2], status;
        char byte;
        pid_t pid;

        CHECK_INT(pipe(pipe_ends), 0);
        pid = fork();
        if (pid == 0) {
                NbdServer *server;

                /* The pipe is not closed on exec: it ends when the server has gone too. */
                if (nbd_server_start((const char *const[]) { "sleep", "1000", NULL }, path, &server, NULL) == 0)
                        raise(SIGKILL);
                _exit(1);
        }
        close(pipe_ends[1]);
        CHECK_INT(waitpid(pid, &status, 0), pid);
        CHECK(WIFSIGNALED(status));
        CHECK_INT(read(pipe_ends[0], &byte, 1), 0);
        close(pipe_ends[0]);
        unlink(path);
}

int main(void) {
        TemporaryDirectory directory = temporary_directory();
        int fd;

        signal(SIGPIPE, SIG_IGN);
        snprintf(image, sizeof image, "%s/image", directory.path);
        snprintf(path, sizeof path, "%s/socket", directory.path);
        fd = open(image, O_WRONLY | O_CREAT, 0600);
        CHECK(fd >= 0 && ftruncate(fd, 1 << 20) == 0 && pwrite(fd, "marked", 6, 4096) == 6);
        close(fd);
        RUN(what_it_serves_can_be_read_at_once);
        RUN(one_that_cannot_serve_says_why);
        RUN(it_dies_with_who_started_it);
        temporary_directory_clear(&directory);
        return unit_result();
}
