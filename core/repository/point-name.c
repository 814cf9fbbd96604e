#include "repository/point-name.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define STAMP_FORMAT "%Y-%m-%dT%H%M%SZ"
#define STAMP_LENGTH (sizeof "2026-11-20T010203Z" - 1)
#define SUFFIX_MAX 99

/* The parts of a name. suffix 1: none is written. Anything that this program would not write itself is refused:
 * two spellings of one moment would not sort by age. */
static int parse(const char *name, time_t *ret_moment, int *ret_suffix) {
        char again[POINT_NAME_MAX];
        struct tm tm = { 0 };
        const char *end;
        time_t moment;
        int suffix = 1;

        if (strnlen(name, POINT_NAME_MAX) >= POINT_NAME_MAX)
                return -EINVAL;
        end = strptime(name, STAMP_FORMAT, &tm);
        if (!end || end - name != (ptrdiff_t) STAMP_LENGTH)
                return -EINVAL;
        if (*end) {
                if (end[0] != '-' || end[1] < '0' || end[1] > '9' || end[2] < '0' || end[2] > '9' || end[3])
                        return -EINVAL;
                suffix = (end[1] - '0') * 10 + (end[2] - '0');
                if (suffix < 2)
                        return -EINVAL;
        }
        moment = timegm(&tm);
        /* timegm() accepts 31 February; what comes back is another day. */
        if (strftime(again, sizeof again, STAMP_FORMAT, gmtime_r(&moment, &tm)) != STAMP_LENGTH ||
            memcmp(again, name, STAMP_LENGTH) != 0)
                return -EINVAL;
        *ret_moment = moment;
        *ret_suffix = suffix;
        return 0;
}

bool point_name_is_valid(const char *name) {
        time_t moment;
        int suffix;

        return parse(name, &moment, &suffix) == 0;
}

int point_name_time(const char *name, time_t *ret) {
        int suffix;

        return parse(name, ret, &suffix);
}

int point_name_next(time_t moment, const char *newest, char ret[static POINT_NAME_MAX]) {
        char text[POINT_NAME_MAX];
        time_t newest_moment;
        struct tm tm;
        int suffix = 1, newest_suffix;

        if (newest && *newest) {
                if (parse(newest, &newest_moment, &newest_suffix) < 0)
                        return -EINVAL;
                if (moment <= newest_moment) {
                        moment = newest_moment;
                        suffix = newest_suffix + 1;
                        if (suffix > SUFFIX_MAX) {
                                moment++;
                                suffix = 1;
                        }
                }
        }
        if (!gmtime_r(&moment, &tm) || tm.tm_year < 0 || tm.tm_year > 9999 - 1900)
                return -ERANGE;
        if (strftime(text, sizeof text, STAMP_FORMAT, &tm) != STAMP_LENGTH)
                return -ERANGE;
        if (suffix > 1)
                snprintf(text + STAMP_LENGTH, sizeof text - STAMP_LENGTH, "-%02d", suffix % (SUFFIX_MAX + 1));
        memcpy(ret, text, sizeof text);
        return 0;
}
