/* core/formats/virtnbdbackup/log-file.h - the logs that the tool leaves: "backup.LEVEL.MMDDYYYYhhmmss.log", one for each
 * run.
 *
 * Threads: one. */
#pragma once

#include "formats/virtnbdbackup/survey.h"

/* When the run began, from the name; 0 where it is no log. */
time_t log_file_time(const char *name);

/* Whether the version that wrote a stream of the directory leaves out what the guest zeroed or discarded since the parent:
 * those from 2.21 (February 2025) do unless they are told not to. Where nothing tells otherwise it does. */
bool log_file_drops_zeroes(const Survey *survey, const Stream *stream);
