#include "machine/console.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/clock.h"

#define KEPT (64u << 10) /* bytes */

struct Console {
        int listener, line; /* descriptors; -1: none */
        size_t length;
        char text[KEPT + 1]; /* no NUL in it but the last */
};

Console *console_close(Console *console) {
        close_fd(&console->line);
        close_fd(&console->listener);
        free(console);
        return NULL;
}

int console_open(const char *path, Console **ret, Reason *reterr) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        CLEANUP(console_closep) Console *console = calloc(1, sizeof *console);

        if (!console)
                return fail_oom(reterr);
        console->line = -1;
        console->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (console->listener < 0)
                return fail_errno(reterr, -errno, "cannot listen for the console");
        if (strlen(path) >= sizeof address.sun_path)
                return fail(reterr, -ENAMETOOLONG, "the path of the console is too long: %s", path);
        strcpy(address.sun_path, path);
        if (bind(console->listener, (struct sockaddr *) &address, sizeof address) < 0 || chmod(path, 0666) < 0 ||
            listen(console->listener, 1) < 0)
                return fail_errno(reterr, -errno, "cannot listen for the console at %s", path);
        *ret = STEAL_PTR(console);
        return 0;
}

/* The older half goes where there is no room. */
static void keep(Console *console, const char *bytes, size_t length) {
        if (console->length + length > KEPT) {
                console->length -= KEPT / 2;
                memmove(console->text, console->text + KEPT / 2, console->length);
        }
        for (size_t i = 0; i < length; i++)
                if (bytes[i])
                        console->text[console->length++] = bytes[i];
        console->text[console->length] = 0;
}

static void take(Console *console) {
        char bytes[KEPT / 4];
        ssize_t length = read(console->line, bytes, sizeof bytes);

        if (length > 0)
                keep(console, bytes, (size_t) length);
        else if (length == 0 || (errno != EAGAIN && errno != EINTR)) {
                close(console->line);
                console->line = -1;
        }
}

void console_listen(Console *console, unsigned ms) {
        uint64_t began = clock_now_ms(), passed = 0;

        for (; passed < ms; passed = clock_now_ms() - began) {
                struct pollfd fds[] = { { .fd = console->listener, .events = POLLIN },
                                        { .fd = console->line, .events = POLLIN } };

                if (poll(fds, 2, (int) (ms - passed)) <= 0)
                        return; /* a signal is somebody's wish to end */
                if (fds[0].revents && console->line < 0)
                        console->line = accept4(console->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
                if (fds[1].revents)
                        take(console);
        }
}

bool console_said(const Console *console, const char *text) {
        return strstr(console->text, text);
}

void console_last_line(const Console *console, char *ret, size_t size) {
        const char *end = console->text + console->length, *start;

        while (end > console->text && (unsigned char) end[-1] <= ' ')
                end--;
        for (start = end; start > console->text && start[-1] != '\n' && start[-1] != '\r';)
                start--;
        snprintf(ret, size, "%.*s", (int) (end - start), start);
}
