/* core/sources/libvirt-private.h - what the files that call libvirt for captures share.
 *
 * libvirt.c              the table, and what is looked at: identify, inspect, readers, watch
 * libvirt-connection.c   the connection, which domain is meant
 * libvirt-begin.c        backup jobs: begun, wherever that is
 * libvirt-job.c          backup jobs: found, ended
 * libvirt-files.c        what is kept of the VM beside its disks
 * libvirt-off.c          a VM that is off: its images, served by programs of our own
 * libvirt-meanwhile.c    what happens to the VM while a job runs
 * libvirt-stillness.c    file systems frozen, the VM paused, while a job begins
 * libvirt-checkpoints.c  checkpoints: kept, defined again, deleted */
#pragma once

#include "libraries/libvirt-agent.h"
#include "libraries/libvirt-connect.h"
#include "sources/job-note.h"
#include "sources/job-place.h"
#include "sources/job-xml.h"
#include "sources/libvirt-domain.h"
#include "sources/libvirt-uri.h"
#include "sources/source.h"

typedef struct Meanwhile Meanwhile;
typedef struct OffJob OffJob;

typedef struct LibvirtSource {
        Source source;
        LibvirtUri uri;
        const char *name;       /* of the domain */
        virConnectPtr connection;
        Domain domain;          /* at the last inspection */
        size_t *captured;       /* which of its disks are the inspection's, in order */
        size_t captured_count;
        bool inspected_off;     /* the VM was off at that */
        char uuid[VIR_UUID_STRING_BUFLEN];
        bool begun;
        JobPlace place;         /* of the job that was begun */
        JobServer server;       /* of the same; its texts are the place's and the URI's */
        Meanwhile *meanwhile;   /* while the job runs */
        OffJob *off;            /* of a VM that is off; else NULL */
        char *checkpoint;       /* that the point will have; NULL: none */
        JobNote note;           /* what is frozen or paused now */
} LibvirtSource;

static inline void libvirt_checkpoint_freep(virDomainCheckpointPtr *checkpoint) {
        if (*checkpoint)
                virDomainCheckpointFree(*checkpoint);
}

/* ---- libvirt-connection.c ---- */

/* Connects, again where the connection broke. */
int libvirt_connect(LibvirtSource *source, Reason *reterr);
/* The VM's domain, as source_inspect() says. Connects. */
int libvirt_find_domain(LibvirtSource *source, virDomainPtr *ret, Reason *reterr);
bool libvirt_is_active(virDomainPtr domain);
int libvirt_check_active(virDomainPtr domain, Reason *reterr); /* -EHOSTDOWN */

/* ---- libvirt-begin.c ---- */

int libvirt_begin(Source *base, const SourceJob *job, struct timespec *ret_moment, Reason *reterr);

/* ---- libvirt-job.c ---- */

int libvirt_end(Source *base, Reason *reterr);
int libvirt_end_leftovers(Source *base, Reason *reterr);

/* What the place of a job is made for; domain: NULL where it is not known. */
JobPlaceWish libvirt_place_wish(const LibvirtSource *source, virDomainPtr domain);
/* -EBUSY: the VM has a job that is not ours, of any kind: the begin would wait for its lock. One of ours is ended. */
int libvirt_check_no_job(LibvirtSource *source, virDomainPtr domain, Reason *reterr);
/* Leaves nothing of a job that could not be begun, or of which nobody knows whether it was. */
void libvirt_undo_begin(LibvirtSource *source, const char *checkpoint);

/* ---- libvirt-off.c ---- */

/* Looks at the images of the disks that the domain's definition names, and leaves out what cannot be read. */
int libvirt_off_inspect(LibvirtSource *source, virDomainPtr domain, Reason *reterr);
/* As the calls of the table; the place is there. libvirt_off_end() does not remove it. */
int libvirt_off_begin(LibvirtSource *source, virDomainPtr domain, const SourceJob *job, struct timespec *ret_moment,
                      Reason *reterr);
int libvirt_off_checkpoint(const LibvirtSource *source, char **ret_name, char **ret_definition, Reason *reterr);
int libvirt_off_open_reader(const LibvirtSource *source, size_t disk, const SourceView *view, SourceReader **ret,
                            Reason *reterr);
int libvirt_off_watch(const LibvirtSource *source, Reason *reterr);
int libvirt_off_confirm(LibvirtSource *source, Reason *reterr);
void libvirt_off_end(LibvirtSource *source);

/* ---- libvirt-meanwhile.c ---- */

/* Has libvirt tell of what happens to the VM from here on, and of another host's scratch files. */
int libvirt_meanwhile_start(LibvirtSource *source, virDomainPtr domain, Reason *reterr);
void libvirt_meanwhile_end(LibvirtSource *source);
bool libvirt_was_started(const LibvirtSource *source);
/* -ENOSPC: a failed write has stopped the VM. Asks nobody, so it never waits. */
int libvirt_watch_meanwhile(const LibvirtSource *source, Reason *reterr);
/* Warns where scratch files grew large unwatched, or came near to filling their file system. */
void libvirt_tell_scratch(const LibvirtSource *source);

/* ---- libvirt-files.c ---- */

/* Adds the definition, which is its own from here on, and the files of the last inspected domain that can be read, with a
 * warning for each other one. -ENOMEM. */
int libvirt_take_files(const LibvirtSource *source, char *definition, SourceVm *vm);

/* ---- libvirt-stillness.c ---- */

/* Freezes and pauses as the job says; the place is there. Whatever it returns, libvirt_let_go() must follow: it undoes it,
 * over a restart of libvirtd too. */
int libvirt_hold_still(LibvirtSource *source, virDomainPtr domain, const SourceJob *job, Reason *reterr);
int libvirt_let_go(LibvirtSource *source, Reason *reterr);
/* The same for what a killed capture left. */
int libvirt_let_go_leftovers(LibvirtSource *source, Reason *reterr);

/* ---- libvirt-checkpoints.c ---- */

int libvirt_checkpoint(Source *base, char **ret_name, char **ret_definition, Reason *reterr);
int libvirt_keep_checkpoints(Source *base, const char *const *keep, size_t count, Reason *reterr);

/* Sees to it that libvirt knows the job's base, which it forgets with a VM that is transient or was moved. disks: those
 * of the domain, in its order. -ESTALE where that cannot be. */
int libvirt_ensure_base(const LibvirtSource *source, virDomainPtr domain, const SourceJob *job, const JobDisk *disks,
                        Reason *reterr);
int libvirt_delete_checkpoint(virDomainPtr domain, virDomainCheckpointPtr checkpoint, Reason *reterr);
