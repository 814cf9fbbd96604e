/* fs/log.h - what the mounted filesystem and the captures that it starts have to say: one line per event, its subject
 * first.
 *
 * In the foreground lines go to stderr, in the background to syslog. Threads: any. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <syslog.h>

/* From now on to syslog. */
void log_to_syslog(void);

/* level: LOG_ERR, LOG_WARNING, LOG_INFO. The line is cut at 1 KiB; control characters become '?'. */
void log_line(int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Whether log_once() would write these words about the thing; they count as written then. */
bool log_is_due(uint64_t thing, const char *words);

/* The same, but once only for equal lines about the same thing (as far as a table of bounded size remembers), and not
 * more than a few in a second: damage that is read again and again floods nothing. */
void log_once(uint64_t thing, const char *format, ...) __attribute__((format(printf, 2, 3)));
