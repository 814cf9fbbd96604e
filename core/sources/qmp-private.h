/* core/sources/qmp-private.h - what the files of the QMP source share.
 *
 * qmp.c             the table, and what is looked at: identify, inspect, readers, watch
 * qmp-client.c      the connection
 * qmp-uri.c         where QEMU is
 * qmp-disks.c       what it says of its disks
 * qmp-job.c         a job: begun, found, ended
 * qmp-scratch.c     the image that keeps what the guest overwrites
 * qmp-bitmaps.c     checkpoints: they are bitmaps
 * qmp-stillness.c   the guest's file systems frozen, the VM paused, while a job begins
 *
 * The sequence for each disk N, all of whose names begin with the source's mark, "vbfs-" with digits of the repository's and
 * the VM's UUIDs and a "-" (a node's name has 31 characters at most): a file node fN, a scratch image sN in it with the
 * disk as its backing file. Then for all disks in one transaction: a bitmap named as the checkpoint; where it is wanted, a
 * bitmap in sN with what the base's has; a job bN, which copies to sN what the guest is about to overwrite, by a filter cN.
 * So sN stays as the disk was, and is exported as eN by QEMU's NBD server.
 * The connection is kept while the job runs: nobody else can take the monitor, without which a job could not be ended.
 * Whoever finds things of the mark in QEMU without a capture that runs (the VM's lock says so) removes them. */
#pragma once

#include "sources/job-note.h"
#include "sources/job-place.h"
#include "sources/nbd-reader.h"
#include "sources/qmp-client.h"
#include "sources/qmp-disks.h"
#include "sources/qmp-uri.h"
#include "sources/source.h"

#define QMP_MARK_MAX 28
#define QMP_NAME_MAX 32 /* of a node, NUL included */

typedef struct QmpSource {
        Source source;
        QmpUri uri;
        char *shown;            /* the URI for people */
        char mark[QMP_MARK_MAX], tag[JOB_TAG_MAX]; /* "" before the VM's UUID is known */
        QmpClient *client;      /* NULL: not connected */
        QmpNodes nodes;         /* at the last inspection, as what follows */
        QmpDisks disks;
        size_t *captured;       /* which of the disks are the inspection's, in order */
        size_t captured_count;
        bool begun, broken;     /* a job: it was begun; one of its parts has ended by itself */
        bool *dirty;            /* for each captured disk: its export has the bitmap of what is dirty */
        JobPlace place;         /* of the job that was begun */
        char *checkpoint;       /* made with it, or NULL */
        JobNote note;           /* what is frozen or paused now */
        QmpClient *agent;       /* while it is frozen */
} QmpSource;

/* Connects, again where the connection broke. Errors as qmp_client_open(), and -ESTALE where another VM has the socket. */
int qmp_connect(QmpSource *source, Reason *reterr);
/* qmp_call() without interest in what is returned. */
int qmp_run(QmpSource *source, const char *command, json_t *arguments, Reason *reterr);
/* "vbfs-0123456789ab-01234567-s000": what is of this kind of a captured disk. */
void qmp_name(const QmpSource *source, char kind, size_t disk, char name[static QMP_NAME_MAX]);
/* Whether a name is of this source's mark, and of this kind (0: any). */
bool qmp_is_ours(const QmpSource *source, const char *name, char kind);
/* What query-named-block-nodes says now. */
int qmp_look_at_nodes(QmpSource *source, QmpNodes *ret, Reason *reterr);
JobPlaceWish qmp_place_wish(const QmpSource *source);

/* ---- qmp-job.c ---- */

int qmp_begin(Source *base, const SourceJob *job, struct timespec *ret_moment, Reason *reterr);
int qmp_end(Source *base, Reason *reterr);
int qmp_end_leftovers(Source *base, Reason *reterr);
/* Whether all parts of the job still run. -ESTALE */
int qmp_confirm(Source *base, Reason *reterr);
/* The job's NBD server and exports: where the disks are read. */
void qmp_server_address(const QmpSource *source, NbdAddress *ret);

/* ---- qmp-scratch.c ---- */

/* Makes the scratch image of a captured disk. What it leaves after a failure qmp_scratch_remove() takes away. */
int qmp_scratch_make(QmpSource *source, size_t disk, Reason *reterr);
/* Takes away all scratch images of the mark. */
int qmp_scratch_remove(QmpSource *source, Reason *reterr);
/* Waits until no job of the mark is there any more, having asked them to end. */
int qmp_jobs_end(QmpSource *source, Reason *reterr);

/* ---- qmp-bitmaps.c ---- */

/* Whether the base's bitmap is good for the disk. -ESTALE */
int qmp_bitmap_check(const QmpNodes *nodes, const QmpDisk *disk, const char *base, Reason *reterr);
/* Why there is no bitmap of this repository's that a next capture could use; NULL: there is one. The caller frees it. */
int qmp_bitmap_why_not(const QmpSource *source, const QmpDisk *disk, char **ret, Reason *reterr);
int qmp_bitmap_remove(QmpSource *source, const char *node, const char *name, Reason *reterr);
int qmp_keep_checkpoints(Source *base, const char *const *keep, size_t count, Reason *reterr);

/* ---- qmp-stillness.c ---- */

/* Freezes and pauses as the job says; the place is there. Whatever it returns, qmp_let_go() must follow. */
int qmp_hold_still(QmpSource *source, const SourceJob *job, Reason *reterr);
int qmp_let_go(QmpSource *source, Reason *reterr);
/* The same for what a killed capture left. */
int qmp_let_go_leftovers(QmpSource *source, Reason *reterr);
