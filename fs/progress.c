#include "progress.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define BAR_MAX 40 /* characters */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool shown;

static int terminal_width(void) {
        struct winsize size;

        if (!isatty(STDERR_FILENO) || ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0)
                return 0;
        return size.ws_col ? size.ws_col : 80;
}

static void format_bytes(uint64_t bytes, char ret[static 16]) {
        static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB" };
        double value = (double) bytes;
        unsigned unit = 0;

        for (; value >= 1000 && unit + 1 < sizeof units / sizeof *units; unit++)
                value /= 1024;
        snprintf(ret, 16, unit && value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
}

static void format_remaining(uint64_t bytes, uint64_t rate, char ret[static 32]) {
        uint64_t seconds = rate ? bytes / rate : 0;

        if (rate == 0 || seconds >= 100 * 3600)
                snprintf(ret, 32, "--:-- left");
        else if (seconds >= 3600)
                snprintf(ret, 32, "%u:%02u:%02u left", (unsigned) (seconds / 3600), (unsigned) (seconds / 60 % 60),
                         (unsigned) (seconds % 60));
        else
                snprintf(ret, 32, "%u:%02u left", (unsigned) (seconds / 60), (unsigned) (seconds % 60));
}

void progress_show(const char *subject, uint64_t done, uint64_t total, uint64_t rate) {
        char done_text[16], total_text[16], rate_text[16], remaining[32], bar[BAR_MAX + 1], line[512];
        double part = total ? (double) done / (double) total : 0;
        int width = terminal_width(), bar_width, filled, length;

        if (width == 0)
                return;
        format_bytes(done, done_text);
        format_bytes(total, total_text);
        format_bytes(rate, rate_text);
        format_remaining(total - (done < total ? done : total), rate, remaining);

        bar_width = width - 64 > BAR_MAX ? BAR_MAX : width - 64 < 0 ? 0 : width - 64;
        filled = (int) (part * bar_width);
        for (int i = 0; i < bar_width; i++)
                bar[i] = i < filled ? '#' : '-';
        bar[bar_width] = 0;
        length = snprintf(line, sizeof line, "%.40s %s %3.0f%% %s of %s, %s/s, %s", subject, bar, part * 100, done_text,
                          total_text, rate_text, remaining);
        if (length >= width)
                length = width - 1;
        pthread_mutex_lock(&lock);
        fprintf(stderr, "\r%.*s\033[K", length, line);
        fflush(stderr);
        shown = true;
        pthread_mutex_unlock(&lock);
}

void progress_clear(void) {
        pthread_mutex_lock(&lock);
        if (shown)
                fprintf(stderr, "\r\033[K");
        shown = false;
        pthread_mutex_unlock(&lock);
}
