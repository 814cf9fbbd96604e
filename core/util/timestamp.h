/* core/util/timestamp.h - moments as people and files write them. All in UTC. */
#pragma once

#include <stdint.h>
#include <time.h>

#define TIMESTAMP_MAX 40

/* RFC 3339 with nanoseconds where there are any: "2026-11-20T01:02:03.123456789Z". */
void timestamp_format(struct timespec moment, char text[static TIMESTAMP_MAX]);
int timestamp_parse(const char *text, struct timespec *ret); /* -EINVAL */

struct timespec timestamp_now(void);
