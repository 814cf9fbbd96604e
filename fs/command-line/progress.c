#include "command-line/progress.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "util/cleanup.h"

#define BAR_MAX 40 /* characters */
#define LINE_MAX_BYTES 512
#define BARS_MAX 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of what follows */
static int shown[BARS_MAX]; /* characters of each line on the screen */
static size_t shown_count;

static struct winsize terminal_size(void) {
        struct winsize size = { 0 };

        if (!isatty(STDERR_FILENO) || ioctl(STDERR_FILENO, TIOCGWINSZ, &size) < 0)
                return (struct winsize) { 0 };
        if (size.ws_col == 0)
                size.ws_col = 80;
        if (size.ws_row == 0)
                size.ws_row = 24;
        return size;
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

/* Returns its length, which is less than the width. */
static int format_bar(const ProgressBar *bar, const char *end, int width, char line[static LINE_MAX_BYTES]) {
        char done_text[16], total_text[16], marks[BAR_MAX + 1];
        double part = bar->total ? (double) bar->done / (double) bar->total : 0;
        int marks_width, filled, length;

        format_bytes(bar->done, done_text);
        format_bytes(bar->total, total_text);
        marks_width = width - 64 > BAR_MAX ? BAR_MAX : width - 64 < 0 ? 0 : width - 64;
        filled = (int) (part * marks_width);
        for (int i = 0; i < marks_width; i++)
                marks[i] = i < filled ? '#' : '-';
        marks[marks_width] = 0;
        length = snprintf(line, LINE_MAX_BYTES, "%.40s %s %3.0f%% %s of %s%s", bar->subject, marks, part * 100, done_text,
                          total_text, end);
        if (length >= LINE_MAX_BYTES)
                length = LINE_MAX_BYTES - 1;
        return length < width ? length : width - 1;
}

/* A terminal that became narrower broke the lines. */
static void clear_shown(int width) {
        int rows = 0;

        for (size_t i = 0; i < shown_count; i++)
                rows += shown[i] > width ? (shown[i] + width - 1) / width : 1;
        if (rows > 1)
                fprintf(stderr, "\033[%dA", rows - 1);
        if (rows > 0)
                fprintf(stderr, "\r\033[J");
        shown_count = 0;
}

/* The last one is the whole. */
static void draw(const ProgressBar *bars, size_t count, uint64_t rate) {
        struct winsize size = terminal_size();
        char rate_text[16], remaining[32], end[64], line[LINE_MAX_BYTES];
        const ProgressBar *whole;
        size_t room = size.ws_row > BARS_MAX ? BARS_MAX : size.ws_row > 1 ? size.ws_row - 1u : 1;

        if (size.ws_col == 0 || count == 0)
                return;
        if (count > room) {
                bars += count - room;
                count = room;
        }
        whole = &bars[count - 1];
        format_bytes(rate, rate_text);
        format_remaining(whole->total - (whole->done < whole->total ? whole->done : whole->total), rate, remaining);
        snprintf(end, sizeof end, ", %s/s, %s", rate_text, remaining);
        pthread_mutex_lock(&lock);
        clear_shown(size.ws_col);
        for (size_t i = 0; i < count; i++) {
                shown[i] = format_bar(&bars[i], i + 1 == count ? end : "", size.ws_col, line);
                fprintf(stderr, "%s%.*s", i > 0 ? "\r\n" : "", shown[i], line);
        }
        shown_count = count;
        fflush(stderr);
        pthread_mutex_unlock(&lock);
}

void progress_clear(void) {
        struct winsize size = terminal_size();

        pthread_mutex_lock(&lock);
        if (shown_count > 0 && size.ws_col > 0)
                clear_shown(size.ws_col);
        fflush(stderr);
        pthread_mutex_unlock(&lock);
}

static void print_json(const Progress *progress, const ProgressBar *whole) {
        CLEANUP(freep) char *text = NULL;
        json_t *disks = json_array(), *object;
        bool bad = !disks;

        for (size_t i = 0; i < progress->disk_count; i++)
                bad |= json_array_append_new(disks, json_pack("{s:s,s:I,s:I}", "name", progress->disks[i].subject,
                                                              "done", (json_int_t) progress->disks[i].done,
                                                              "total", (json_int_t) progress->disks[i].total)) < 0;
        object = json_pack("{s:s,s:I,s:I,s:I,s:o}", progress->key, progress->subject, "done", (json_int_t) whole->done,
                           "total", (json_int_t) whole->total, "rate", (json_int_t) progress->rate, "disks", disks);
        bad |= !object;
        if (object && progress->waits)
                bad |= json_object_set_new(object, "waits", json_string(progress->waits)) < 0;
        text = bad ? NULL : json_dumps(object, JSON_COMPACT);
        json_decref(object);
        if (text)
                fprintf(stderr, "%s\n", text);
}

void progress_show(const Progress *progress, bool json) {
        CLEANUP(freep) ProgressBar *bars = calloc(progress->disk_count + 1, sizeof *bars);
        ProgressBar whole = { .subject = progress->subject };
        size_t count = 0;

        for (size_t i = 0; i < progress->disk_count; i++) {
                whole.done += progress->disks[i].done;
                whole.total += progress->disks[i].total;
        }
        if (json) {
                print_json(progress, &whole);
                return;
        }
        if (!bars)
                return;
        for (; progress->disk_count > 1 && count < progress->disk_count; count++)
                bars[count] = progress->disks[count];
        bars[count++] = whole;
        draw(bars, count, progress->rate);
}
