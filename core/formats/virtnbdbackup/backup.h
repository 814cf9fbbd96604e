/* core/formats/virtnbdbackup/backup.h - which streams were written by one run of the tool, and which one each needs.
 *
 * The metadata tell which checkpoint a run made and onto which one it is; names of checkpoints repeat, so that dates and the
 * times of the log files tell apart what has the same names. A stream makes its checkpoint unless it is a copy or a
 * differential, or was written while the VM was off: such a one is a leaf, as the next increment is onto the checkpoint that
 * it was onto itself.
 * Threads: one. */
#pragma once

#include "formats/virtnbdbackup/log-file.h"

#define BACKUP_NONE SIZE_MAX

typedef struct Backup {
        size_t place;
        NameLevel level;
        char *key;         /* of its point; starts with the directory */
        const char *ident; /* what the names of files that go with it end in; not valid where it is differential */
        struct timespec time;
        size_t first, count; /* of its streams, in Backups.streams */
} Backup;

typedef struct BackupStream {
        const Stream *stream;
        size_t backup;
        const char *parent; /* key of the backup that it needs; NULL: none, or lost */
        uint64_t grown_from; /* see member.h */
        char *problem;      /* or NULL */
        bool is_double;     /* the same as the one before it */
} BackupStream;

typedef struct Backups {
        BackupStream *streams; /* sorted, those of one backup together */
        size_t stream_count;
        Backup *backups;
        size_t count;
} Backups;

/* Borrows the survey. -ENOMEM. */
int backups_make(const Survey *survey, const LogFiles *logs, Backups *ret);
void backups_clear(Backups *backups);

/* Whether its streams have all been found to be of another: raw ones of a backup that has others. */
bool backup_is_empty(const Backups *backups, const Backup *backup);

/* Whether the stream made the checkpoint that it names. */
bool stream_makes_checkpoint(const Stream *stream);
