#include "machine/console.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "temporary.h"
#include "unit.h"

typedef struct Line {
        TemporaryDirectory directory;
        char *path;
        Console *console;
        int guest; /* the end of QEMU */
} Line;

static void line_clear(Line *line) {
        line->console = console_close(line->console);
        if (line->guest >= 0)
                close(line->guest);
        free(line->path);
        temporary_directory_clear(&line->directory);
}

static Line line_new(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        Line line = { .directory = temporary_directory() };

        CHECK(asprintf(&line.path, "%s/console", line.directory.path) > 0);
        CHECK_INT(console_open(line.path, &line.console, NULL), 0);
        line.guest = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        strcpy(address.sun_path, line.path);
        CHECK_INT(connect(line.guest, (struct sockaddr *) &address, sizeof address), 0);
        return line;
}

static void type(const Line *line, const char *text) {
        CHECK_INT(write(line->guest, text, strlen(text)), strlen(text));
}

static void what_the_guest_writes_is_heard(void) {
        CLEANUP(line_clear) Line line = line_new();
        char last[64];

        console_last_line(line.console, last, sizeof last);
        CHECK_TEXT(last, "");
        type(&line, "Debian GNU/Linux\r\n\r\nvm1 log");
        console_listen(line.console, 20);
        CHECK(!console_said(line.console, "login:"));
        type(&line, "in: \r\n\n");
        console_listen(line.console, 20);
        CHECK(console_said(line.console, "login:"));
        console_last_line(line.console, last, sizeof last);
        CHECK_TEXT(last, "vm1 login:");
}

static void bytes_that_are_no_text_are_no_end(void) {
        CLEANUP(line_clear) Line line = line_new();

        CHECK_INT(write(line.guest, "a\0b\0\0c", 6), 6);
        console_listen(line.console, 20);
        CHECK(console_said(line.console, "abc"));
}

static void much_is_not_kept_for_ever(void) {
        CLEANUP(line_clear) Line line = line_new();
        char last[64];

        type(&line, "the very first\n");
        for (int i = 0; i < 3000; i++) {
                type(&line, "a line of some length, which is written again and again\n");
                if (i % 100 == 0)
                        console_listen(line.console, 5);
        }
        type(&line, "the last");
        console_listen(line.console, 20);
        CHECK(!console_said(line.console, "the very first"));
        console_last_line(line.console, last, sizeof last);
        CHECK_TEXT(last, "the last");
}

static void guest_that_goes_away_is_no_harm(void) {
        CLEANUP(line_clear) Line line = line_new();

        type(&line, "bye");
        close(line.guest);
        console_listen(line.console, 20);
        console_listen(line.console, 20);
        CHECK(console_said(line.console, "bye"));
        line.guest = -1;
}

static void path_that_is_too_long_is_refused(void) {
        char path[300];
        Console *console;
        Reason reason = REASON_INIT;

        memset(path, 'x', sizeof path - 1);
        path[sizeof path - 1] = 0;
        CHECK_INT(console_open(path, &console, &reason), -ENAMETOOLONG);
        CHECK_SAYS(reason, "too long");
}

int main(void) {
        RUN(what_the_guest_writes_is_heard);
        RUN(bytes_that_are_no_text_are_no_end);
        RUN(much_is_not_kept_for_ever);
        RUN(guest_that_goes_away_is_no_harm);
        RUN(path_that_is_too_long_is_refused);
        return unit_result();
}
