#include "formats/virtnbdbackup/log-file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DROPS_SINCE 1740009600 /* 2025-02-20 */
#define DROPS_MAJOR 2
#define DROPS_MINOR 21
#define LOOK_LENGTH 4096u /* the version is in one of the first lines */
#define TIME_DIGITS 14u

time_t log_file_time(const char *name) {
        const char *dot;
        struct tm tm = { .tm_isdst = -1 };
        const char *rest;
        time_t time;

        if (strncmp(name, "backup.", strlen("backup.")) != 0)
                return 0;
        dot = strchr(name + strlen("backup."), '.');
        if (!dot || strspn(dot + 1, "0123456789") != TIME_DIGITS || strcmp(dot + 1 + TIME_DIGITS, ".log") != 0)
                return 0;
        rest = strptime(dot + 1, "%m%d%Y%H%M%S", &tm);
        if (!rest || *rest != '.')
                return 0;
        time = mktime(&tm);
        return time > 0 ? time : 0;
}

/* The log of the run that wrote at this time: the last that begins before. */
static const Item *find_log(const Survey *survey, time_t time) {
        const Item *best = NULL;
        time_t best_time = 0;

        for (size_t i = 0; i < survey->item_count && survey->items[i].place == 0; i++) {
                time_t began = log_file_time(survey->items[i].name);

                if (began > best_time && began <= time) {
                        best = &survey->items[i];
                        best_time = began;
                }
        }
        return best;
}

bool log_file_drops_zeroes(const Survey *survey, const Stream *stream) {
        CLEANUP(freep) char *text = NULL, *sidecar = NULL;
        const Item *item = stream->item, *log;
        time_t date = stream->metadata.date.tv_sec;
        const char *version;
        int major, minor;

        if (date > 0 && date < DROPS_SINCE)
                return false;
        if (item->place != 0)
                return true;
        /* Versions before 1.9.40 write no checksum beside it. */
        if (asprintf(&sidecar, "%s.chksum", item->name) < 0)
                sidecar = NULL;
        else if (!survey_find(survey, 0, sidecar))
                return false;
        log = find_log(survey, date);
        if (!log || item_text(survey, log, LOOK_LENGTH, &text, NULL) < 0)
                return true;
        version = strstr(text, "Version: ");
        if (!version || sscanf(version, "Version: %d.%d", &major, &minor) != 2)
                return true;
        return (major > DROPS_MAJOR || (major == DROPS_MAJOR && minor >= DROPS_MINOR)) &&
               !strstr(version, "--no-sparse-detection");
}
