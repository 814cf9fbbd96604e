/* core/restore/target.h - what a disk is restored to: one table for all kinds of targets.
 *
 * A target is named by a path or a URI, and is one of two sorts. A new one (a file) is made under the name TARGET.partial
 * and gets its own when it is finished. One in place (a device, a server) has content of its own: until it is finished, its
 * beginning says that it is not (journal.h). What is left of one that was not finished can be gone on with.
 * Life: open; any number of writes, zeroes and reads; sync; finish; close.
 * Threads: writes, zeroes, reads and syncs from any number of threads at once, on ranges that do not overlap; each takes a
 * connection for itself where the kind has such, and waits for one. The rest belongs to the thread that opened it. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"
#include "util/reason.h"

#define TARGET_GRAIN 4096u /* bytes: at least; see DiskTarget */

typedef struct TargetRequest {
        const char *name;   /* a path or a URI */
        const char *format; /* "raw", "qcow2"; NULL: as the name says */
        uint64_t size;      /* bytes of the disk */
        const char *backing; /* qcow2 files: an image in the same directory that has what is not written; NULL: zeroes */
        bool replace;       /* what is there already may go */
        const atomic_bool *cancel; /* or NULL */
        void (*tell)(void *context, const char *line); /* what the user should know, without being an error; or NULL */
        void *context;
} TargetRequest;

typedef struct DiskTarget DiskTarget;

typedef struct TargetOps {
        const char *name;     /* "file" */
        const char *raw_only; /* "a block device": what does not take other formats; NULL: it does */
        size_t size;          /* of the implementation's struct, which the door makes: all zeroes but for the first fields */
        bool (*claims)(const TargetRequest *request);
        /* Checks that it is not in use (-EBUSY), large enough (-ENOSPC), and, where it is a new one, that its name is free
         * or may be replaced (-EEXIST). Nothing of what was there is changed. close follows whatever it returns. */
        int (*open)(DiskTarget *target, const TargetRequest *request, Reason *reterr);
        /* New ones: forgets what was left of one that was not finished; all of it reads as zeroes then. NULL: in place. */
        int (*clear)(DiskTarget *target, Reason *reterr);
        /* One more, any thread; NULL: there are no connections, and the others below get NULL. */
        int (*connect)(DiskTarget *target, void **ret, Reason *reterr);
        void (*disconnect)(DiskTarget *target, void *connection);
        int (*write)(DiskTarget *target, void *connection, const void *buffer, size_t length, uint64_t offset,
                     Reason *reterr);
        /* -EOPNOTSUPP: it cannot, and the door writes them. */
        int (*zero)(DiskTarget *target, void *connection, uint64_t length, uint64_t offset, Reason *reterr);
        int (*read)(DiskTarget *target, void *connection, void *buffer, size_t length, uint64_t offset, Reason *reterr);
        /* Makes room for writes to come, in whole grains; NULL: it makes no difference. */
        int (*reserve)(DiskTarget *target, uint64_t length, uint64_t offset);
        /* How many bytes from offset on are known to read as zeroes without reading them, up to length; NULL: none are. */
        uint64_t (*zeroes)(DiskTarget *target, void *connection, uint64_t length, uint64_t offset);
        /* What has been written, over any connection, is on stable storage. */
        int (*sync)(DiskTarget *target, void *connection, Reason *reterr);
        /* After a sync: new ones get their name, durably. Connections are closed before. NULL: nothing is to be done. */
        int (*finish)(DiskTarget *target, Reason *reterr);
        /* Not finished. keep: what is written is worth going on with; else what was made is removed. */
        void (*close)(DiskTarget *target, bool keep);
} TargetOps;

typedef struct TargetConnections TargetConnections;

/* Implementations embed this as their first member. */
struct DiskTarget {
        /* By the door: */
        const TargetOps *ops;
        uint64_t disk_size;      /* bytes of the disk */
        const atomic_bool *cancel;
        TargetConnections *connections;
        /* By open: */
        char *shown;             /* the name for people, without secrets; owned by the door from then on */
        char *unfinished;        /* where what is not finished lies, for people; NULL: in the target itself. As above */
        uint64_t size;           /* bytes there are: at least disk_size */
        uint32_t grain;          /* what is written or read begins at multiples of it, and ends at such or at the end of the
                                    target or (as the door alone knows) of the disk; a power of two, at least TARGET_GRAIN,
                                    which it is where open leaves it */
        unsigned connections_max; /* at once; where the kind has such */
        bool in_place;
        bool found;              /* new, and there is something left of one that was not finished */
        bool clean;              /* new, and nothing has been written: it reads as zeroes */
};

/* -EINVAL: the name or the format makes no sense. */
int disk_target_open(const TargetRequest *request, DiskTarget **ret, Reason *reterr);
/* What is left of it can be gone on with where keep is true. Always NULL. */
DiskTarget *disk_target_close(DiskTarget *target, bool keep);

int disk_target_clear(DiskTarget *target, Reason *reterr);
/* Ranges begin at grains and end at such or at the end of the disk; buffers begin at multiples of TARGET_GRAIN. */
int disk_target_write(DiskTarget *target, const void *buffer, size_t length, uint64_t offset, Reason *reterr);
int disk_target_zero(DiskTarget *target, uint64_t length, uint64_t offset, Reason *reterr);
int disk_target_read(DiskTarget *target, void *buffer, size_t length, uint64_t offset, Reason *reterr);
uint64_t disk_target_zeroes(DiskTarget *target, uint64_t length, uint64_t offset);
/* Of the kinds that have it; any range of the disk. An error is no reason to end. */
int disk_target_reserve(DiskTarget *target, uint64_t length, uint64_t offset);
int disk_target_sync(DiskTarget *target, Reason *reterr);
/* Whole from here on. Only disk_target_close() may follow. */
int disk_target_finish(DiskTarget *target, Reason *reterr);

/* "raw" or "qcow2": what is said, else what the name ends with. -EINVAL: another format. */
int target_format(const char *name, const char *said, const char **ret, Reason *reterr);
