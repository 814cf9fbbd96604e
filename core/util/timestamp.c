#include "util/timestamp.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

void timestamp_format(struct timespec moment, char text[static TIMESTAMP_MAX]) {
        struct tm t;
        int n;

        if (!gmtime_r(&moment.tv_sec, &t)) /* a year that no int holds */
                gmtime_r(&(time_t) { 0 }, &t);
        n = snprintf(text, TIMESTAMP_MAX, "%04d-%02d-%02dT%02d:%02d:%02d", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday,
                     t.tm_hour, t.tm_min, t.tm_sec);
        if (moment.tv_nsec > 0 && moment.tv_nsec < 1000000000)
                n += snprintf(text + n, TIMESTAMP_MAX - (size_t) n, ".%09ld", moment.tv_nsec);
        snprintf(text + n, TIMESTAMP_MAX - (size_t) n, "Z");
}

/* Whether text begins as pattern does, where '0' stands for any digit. */
static int follows(const char *text, const char *pattern) {
        for (; *pattern; text++, pattern++)
                if (*pattern == '0' ? !isdigit((unsigned char) *text) : *text != *pattern)
                        return 0;
        return 1;
}

int timestamp_parse(const char *text, struct timespec *ret) {
        static const char pattern[] = "0000-00-00T00:00:00";
        struct tm t = { 0 }, again;
        const char *c = text + sizeof pattern - 1;
        long nanoseconds = 0;
        time_t seconds;

        if (!follows(text, pattern) ||
            sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d", &t.tm_year, &t.tm_mon, &t.tm_mday, &t.tm_hour, &t.tm_min,
                   &t.tm_sec) != 6)
                return -EINVAL;
        t.tm_year -= 1900;
        t.tm_mon -= 1;
        again = t;
        seconds = timegm(&again);
        /* timegm() takes the 31st of February for the 3rd of March. */
        if (again.tm_year != t.tm_year || again.tm_mon != t.tm_mon || again.tm_mday != t.tm_mday ||
            again.tm_hour != t.tm_hour || again.tm_min != t.tm_min || again.tm_sec != t.tm_sec)
                return -EINVAL;
        if (*c == '.') {
                long unit = 100000000;

                if (!isdigit((unsigned char) *++c))
                        return -EINVAL;
                for (; isdigit((unsigned char) *c); c++, unit /= 10) {
                        if (unit == 0)
                                return -EINVAL;
                        nanoseconds += (*c - '0') * unit;
                }
        }
        if (strcmp(c, "Z") != 0)
                return -EINVAL;
        *ret = (struct timespec) { seconds, nanoseconds };
        return 0;
}

struct timespec timestamp_now(void) {
        struct timespec now;

        clock_gettime(CLOCK_REALTIME, &now);
        return now;
}
