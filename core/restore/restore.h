/* core/restore/restore.h - writes disks of a point to where machines can use them, straight from the layers.
 *
 * Threads read, decompress and write pieces of the disk side by side; what is zero is not transported. A restore that was
 * interrupted, however, goes on where it was when it is called again for the same disk and target.
 * Nothing that is not whole looks as if it were: target.h tells how.
 * Threads: one restore belongs to one thread; functions of RestoreOptions are called from it. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "repository/vm.h"
#include "util/reason.h"

typedef struct RestoreProgress {
        const char *disk;
        uint64_t done, total; /* bytes of data to be written and, where asked for, compared */
} RestoreProgress;

typedef struct RestoreOptions {
        const char *format;   /* "raw", "qcow2"; NULL: as the target's name says */
        bool replace;         /* what is there already may go */
        bool verify;          /* what was written is read again and compared */
        bool skip_unreadable; /* what cannot be read of the point becomes zeroes, and is told; else it is an error */
        unsigned threads;     /* 0: as many as are worth having */
        const atomic_bool *cancel; /* or NULL */
        /* All may be NULL. */
        void (*progress)(void *context, const RestoreProgress *disks, size_t count); /* a few times a second */
        void (*skipped)(void *context, const char *disk, uint64_t start, uint64_t length, const Reason *why);
        void (*tell)(void *context, const char *line);
        void *context;
} RestoreOptions;

/* target: a path or a URI. *ret_skipped: bytes that are zeroes because they could not be read.
 * -EEXIST, -EBUSY, -ENOSPC, -EROFS, …; -EIO also where the point is damaged; -ECANCELED. */
int restore_disk(Vm *vm, const char *point, const char *disk, const char *target, const RestoreOptions *options,
                 uint64_t *ret_skipped, Reason *reterr);

/* Every disk, as DISK.raw or DISK.qcow2, and the files kept with the point, into a directory, which is made where there is
 * none. What was restored by an interrupted call is not restored again. */
int restore_point(Vm *vm, const char *point, const char *directory, const RestoreOptions *options, uint64_t *ret_skipped,
                  Reason *reterr);
