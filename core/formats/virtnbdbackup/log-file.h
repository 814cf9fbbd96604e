/* core/formats/virtnbdbackup/log-file.h - the logs that the tool leaves: "backup.LEVEL.MMDDYYYYhhmmss.log", one for each
 * run.
 *
 * Threads: immutable once gathered. */
#pragma once

#include "formats/virtnbdbackup/survey.h"

typedef struct LogFile {
        time_t began; /* the run, as the name has it */
        const Item *item;
} LogFile;

typedef struct LogFiles { /* zeroed: empty */
        LogFile *items; /* sorted by time */
        size_t count;
} LogFiles;

/* Those of the directory. Borrows the survey. -ENOMEM. */
int log_files_gather(const Survey *survey, LogFiles *ret);
void log_files_clear(LogFiles *logs);

/* Whether a run began behind one moment and not behind the other. */
bool log_files_have_between(const LogFiles *logs, time_t before, time_t behind);

/* Whether the version that wrote a stream of the directory leaves out what the guest zeroed or discarded since the parent:
 * those from 2.21 (February 2025) do unless they are told not to. Where nothing tells otherwise it does. */
bool log_files_drop_zeroes(const LogFiles *logs, const Survey *survey, const Stream *stream);

/* Whether it is the name of a log. */
bool log_file_is(const char *name);
