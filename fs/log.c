#include "log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "codec/checksum.h"
#include "util/clock.h"

#define LINE_MAX_BYTES 1024
#define REMEMBERED 4096
#define PER_SECOND 20

static atomic_bool to_syslog;

void log_to_syslog(void) {
        openlog("virtbackupfs", LOG_PID, LOG_DAEMON);
        atomic_store(&to_syslog, true);
}

static void write_line(int level, char *line) {
        for (char *c = line; *c; c++)
                if ((unsigned char) *c < ' ' || *c == 0x7f)
                        *c = '?';
        if (atomic_load(&to_syslog))
                syslog(level, "%s", line);
        else
                fprintf(stderr, "virtbackupfs: %s\n", line);
}

void log_line(int level, const char *format, ...) {
        char line[LINE_MAX_BYTES];
        va_list args;

        va_start(args, format);
        vsnprintf(line, sizeof line, format, args);
        va_end(args);
        write_line(level, line);
}

/* Whether this second has room for one more line. */
static bool within_rate(void) {
        static _Atomic uint64_t window; /* the second, and how many lines it has had */
        uint64_t second = clock_now_ms() / 1000 << 8, old = atomic_load(&window), new;

        do {
                if ((old & ~0xffull) != second)
                        new = second + 1;
                else if ((old & 0xff) < PER_SECOND)
                        new = old + 1;
                else
                        return false;
        } while (!atomic_compare_exchange_weak(&window, &old, new));
        return true;
}

bool log_is_due(uint64_t thing, const char *words) {
        static _Atomic uint64_t remembered[REMEMBERED];
        uint64_t key = (checksum(words, strlen(words)) ^ thing * 0x9e3779b97f4a7c15ull) | 1;

        if (atomic_load(&remembered[key / 2 % REMEMBERED]) == key || !within_rate())
                return false;
        return atomic_exchange(&remembered[key / 2 % REMEMBERED], key) != key;
}

void log_once(uint64_t thing, const char *format, ...) {
        char line[LINE_MAX_BYTES];
        va_list args;

        va_start(args, format);
        vsnprintf(line, sizeof line, format, args);
        va_end(args);

        if (log_is_due(thing, line))
                write_line(LOG_ERR, line);
}
