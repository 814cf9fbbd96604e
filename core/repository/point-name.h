/* core/repository/point-name.h - names of restore points: "2026-11-20T010203Z", a second one in the same second
 * "…Z-02", up to "-99". They sort by age as plain strings. */
#pragma once

#include <stdbool.h>
#include <time.h>

#define POINT_NAME_MAX 24 /* bytes, NUL included */

bool point_name_is_valid(const char *name);

/* The moment that the name says. -EINVAL. */
int point_name_time(const char *name, time_t *ret);

/* The name for a point of this moment that sorts after newest (NULL or "": there is none), whatever the clock did.
 * -ERANGE where the calendar ends. */
int point_name_next(time_t moment, const char *newest, char ret[static POINT_NAME_MAX]);
