#include "formats/virtnbdbackup/log-file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/text.h"

#define DROPS_SINCE 1740009600 /* 2025-02-20 */
#define DROPS_MAJOR 2
#define DROPS_MINOR 21
#define LOOK_LENGTH 4096u /* the version is in one of the first lines */
#define TIME_DIGITS 14u

/* Where the moment begins in the name of a log; NULL where it is none. */
static const char *find_moment(const char *name) {
        const char *dot;

        if (strncmp(name, "backup.", strlen("backup.")) != 0)
                return NULL;
        dot = strchr(name + strlen("backup."), '.');
        if (!dot || strspn(dot + 1, "0123456789") != TIME_DIGITS || strcmp(dot + 1 + TIME_DIGITS, ".log") != 0)
                return NULL;
        return dot + 1;
}

bool log_file_is(const char *name) {
        return find_moment(name);
}

/* 0 where it is no moment. */
static time_t read_moment(const char *text) {
        struct tm tm = { .tm_isdst = -1 };
        const char *rest = strptime(text, "%m%d%Y%H%M%S", &tm);
        time_t time = rest && *rest == '.' ? mktime(&tm) : 0;

        return time > 0 ? time : 0;
}

static int compare_logs(const void *a, const void *b) {
        const LogFile *x = a, *y = b;

        return (x->began > y->began) - (x->began < y->began);
}

int log_files_gather(const Survey *survey, LogFiles *ret) {
        LogFiles logs = { calloc(survey->item_count + 1, sizeof *logs.items), 0 };

        if (!logs.items)
                return -ENOMEM;
        for (size_t i = 0; i < survey->item_count && survey->items[i].place == 0; i++) {
                const char *moment = find_moment(survey->items[i].name);
                time_t began = moment ? read_moment(moment) : 0;

                if (began > 0)
                        logs.items[logs.count++] = (LogFile) { began, &survey->items[i] };
        }
        qsort(logs.items, logs.count, sizeof *logs.items, compare_logs);
        *ret = logs;
        return 0;
}

void log_files_clear(LogFiles *logs) {
        free(logs->items);
        *logs = (LogFiles) { 0 };
}

/* The first that begins behind a moment; the count where there is none. */
static size_t find_behind(const LogFiles *logs, time_t moment) {
        size_t low = 0, high = logs->count;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (logs->items[middle].began > moment)
                        high = middle;
                else
                        low = middle + 1;
        }
        return low;
}

bool log_files_have_between(const LogFiles *logs, time_t before, time_t behind) {
        size_t at = find_behind(logs, before);

        return at < logs->count && logs->items[at].began <= behind;
}

bool log_files_drop_zeroes(const LogFiles *logs, const Survey *survey, const Stream *stream) {
        CLEANUP(freep) char *text = NULL, *sidecar = NULL;
        const Item *item = stream->item;
        time_t date = stream->metadata.date.tv_sec;
        size_t behind = find_behind(logs, date);
        const char *version;
        int major, minor;

        if (date > 0 && date < DROPS_SINCE)
                return false;
        if (item->place != 0)
                return true;
        /* Versions before 1.9.40 write no checksum beside it. */
        if (text_format(&sidecar, "%s.chksum", item->name) == 0 && !survey_find(survey, 0, sidecar))
                return false;
        /* The log of the run that wrote it: the last that begins before. */
        if (behind == 0 || item_text(survey, logs->items[behind - 1].item, LOOK_LENGTH, &text, NULL) < 0)
                return true;
        version = strstr(text, "Version: ");
        if (!version || sscanf(version, "Version: %d.%d", &major, &minor) != 2)
                return true;
        return (major > DROPS_MAJOR || (major == DROPS_MAJOR && minor >= DROPS_MINOR)) &&
               !strstr(version, "--no-sparse-detection");
}
