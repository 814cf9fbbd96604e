/* core/sources/source.h - where a capture reads from: one table for all kinds.
 *
 * A source knows one VM. Life: source_open, source_inspect, source_begin, then any number of readers, then source_end.
 * What a killed capture left behind is found and ended by source_end_leftovers(), from any process.
 * Threads: a Source belongs to one thread, but for source_watch() (see there); each SourceReader to one thread. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "util/cleanup.h"
#include "util/reason.h"
#include "util/strings.h"

typedef struct Source Source;
typedef struct SourceReader SourceReader;

/* Who opens it; strings are borrowed and outlive the source. */
typedef struct SourceOwner {
        const char *source;     /* the SOURCE of `add`: a URI, or words DISK=URI with one space between them */
        const Strings *include; /* the disks to capture; NULL or empty: all */
        const Strings *exclude; /* of those, the disks to leave out; may be NULL */
        const char *vm;         /* the VM's name in the repository */
        const char *vm_uuid;    /* must be the VM's; NULL: any (at `add`) */
        const char *former_uuid; /* at `add`: whose points are there under that name, which a source that knows no UUID goes
                                    on with; NULL: nobody's */
        const char *repository; /* UUID: names everything that is made in the hypervisor */
        const char *scratch_directory;   /* for scratch files; NULL: the source's choice */
        const atomic_bool *cancel;       /* once true, waits end with -ECANCELED; may be NULL */
        void (*warn)(void *context, const char *line); /* something was left out or done otherwise; one line; may be NULL */
        void *context;
} SourceOwner;

typedef struct SourceDisk {
        char *name;           /* target: "vda" */
        bool tracks_changes;  /* its image can carry a bitmap; else all of it is read each time */
        char *why_not;        /* "raw image cannot carry a bitmap", where it does not */
        char *backing;        /* what lies directly below the top image, for people; NULL: nothing */
        Strings images;       /* identity: the image that the guest writes to first, then its backing files. Each is a
                                 text that stays the same as long as the image is the same one. Empty: cannot be told */
} SourceDisk;

typedef struct SourceFile {
        char *name; /* "domain.xml", "nvram" */
        char *content;
        size_t length;
} SourceFile;

/* What there is to capture. */
typedef struct SourceVm {
        char *uuid;
        SourceDisk *disks;
        size_t disk_count;
        SourceFile *files;    /* to be kept with the point */
        size_t file_count;
} SourceVm;
void source_vm_clear(SourceVm *vm);

/* Whether the guest's file systems are frozen while a job starts. */
typedef enum SourceFreeze {
        FREEZE_IF_OFFERED, /* where an agent answers */
        FREEZE_ALWAYS,     /* or fail */
        FREEZE_NEVER,
} SourceFreeze;

/* What to begin. Strings are borrowed for the call. */
typedef struct SourceJob {
        const char *checkpoint;      /* to be made with the job, for all disks that can */
        const char *base;            /* checkpoint that incremental disks start from; NULL: none */
        const char *base_definition; /* its definition as source_checkpoint() gave it then; may be NULL */
        const bool *incremental;     /* for each disk of SourceVm, same order: its dirty ranges will be asked for */
        bool top;                    /* what lies in backing files will be asked for */
        SourceFreeze freeze;
        bool pause;                  /* the VM stands still while the job starts */
        size_t *blamed;              /* set with -ESTALE where that can be told: the one disk whose bitmap is of no use */
} SourceJob;

/* For implementations: passes rc on, and with -ESTALE notes whose bitmap it was. */
int source_blame(const SourceJob *job, size_t disk, int rc);

/* How a reader looks at its disk. */
typedef struct SourceView {
        bool incremental; /* tells what is dirty; as in the job */
        bool top;         /* tells what lies below the top image; as in the job */
        bool ask_zero;    /* asks what is zero; else all counts as data */
} SourceView;

/* A range in one state, as a source tells it. */
typedef struct SourceExtent {
        uint64_t start, length; /* bytes */
        bool dirty;             /* changed since the base; always true without one */
        bool zero;              /* reads as zeroes for sure */
        bool below;             /* a backing file has it, not the top image; only where that is asked for */
} SourceExtent;

typedef struct SourceExtents {
        SourceExtent *items;
        size_t count, capacity;
} SourceExtents;
void source_extents_clear(SourceExtents *extents);
/* Appends it, or makes the last one longer where it is a neighbour in the same state. -ENOMEM. For implementations. */
int source_extents_add(SourceExtents *extents, SourceExtent next);

typedef struct SourceOps {
        const char *name;                  /* "libvirt" */
        bool (*claims)(const char *source); /* whether this kind is meant */
        int (*open)(const SourceOwner *owner, Source **ret, Reason *reterr);
        int (*identify)(Source *source, char **ret, Reason *reterr);
        int (*settle)(Source *source, char **ret, Reason *reterr); /* NULL: SOURCE is kept as it is */
        int (*inspect)(Source *source, SourceVm *ret, Reason *reterr);
        int (*begin)(Source *source, const SourceJob *job, struct timespec *ret_moment, Reason *reterr);
        int (*checkpoint)(Source *source, char **ret_name, char **ret_definition, Reason *reterr);
        int (*open_reader)(Source *source, size_t disk, const SourceView *view, SourceReader **ret, Reason *reterr);
        int (*watch)(Source *source, Reason *reterr);
        int (*confirm)(Source *source, Reason *reterr); /* NULL: needs none */
        int (*end)(Source *source, Reason *reterr);
        int (*end_leftovers)(Source *source, Reason *reterr);
        int (*keep_checkpoints)(Source *source, const char *const *keep, size_t count, Reason *reterr);
        void (*free)(Source *source);
} SourceOps;

typedef struct SourceReaderOps {
        int (*extents)(SourceReader *reader, uint64_t start, uint64_t length, SourceExtents *ret, Reason *reterr);
        int (*read)(SourceReader *reader, void *buffer, size_t length, uint64_t offset, Reason *reterr);
        void (*free)(SourceReader *reader);
} SourceReaderOps;

/* Implementations embed these as their first members. */
struct Source {
        const SourceOps *ops;
        SourceOwner owner;
};
struct SourceReader {
        const SourceReaderOps *ops;
        uint64_t size;          /* bytes of the disk */
        uint64_t read_max;      /* longest read in bytes, at least 64 KiB */
        uint64_t read_best;     /* bytes, a power of 2, that are best read at once; 0: many */
        bool multi;             /* more readers of the same disk may be opened beside this one */
        bool lost;              /* its connection is gone: all calls fail from now on; another reader may do better */
};

/* Adds a kind that is asked before those built in. Once at a program's start, before threads; ops are borrowed for good. */
void source_register(const SourceOps *ops);

/* One line through the owner's warn, where it has one. From the capture's own thread. */
void source_warn(const SourceOwner *owner, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Whether the owner wants a disk of this name captured. */
bool source_wants_disk(const SourceOwner *owner, const char *name);

/* -EINVAL: no kind of source claims it. */
int source_open(const SourceOwner *owner, Source **ret, Reason *reterr);
Source *source_free(Source *source); /* always NULL; does not end a job */
DEFINE_CLEANUP(Source, source_free)

/* The UUID of the VM, running or not: what `add` needs. A new one where the source has no such thing. -ENOENT as below.
 * The caller frees *ret. */
int source_identify(Source *source, char **ret, Reason *reterr);

/* SOURCE as it is to be kept with the VM: relative paths in it made absolute. The caller frees *ret. */
int source_settle(Source *source, char **ret, Reason *reterr);

/* Looks at the VM as it is now. -ENOENT: the hypervisor has none; -ESTALE: it has another of that name (UUID);
 * -EHOSTDOWN: it is not running, and the source needs that. What cannot be captured is left out of the disks with a warning
 * that names it; what the owner does not want, without. */
int source_inspect(Source *source, SourceVm *ret, Reason *reterr);

/* Begins the job on all disks of the last inspection at one moment (*ret_moment, wall clock). -EBUSY: the VM has
 * another job; -ENOTSUP: the source has no such thing as `top`, or no agent where freezing is a must; -ESTALE: the base
 * cannot be used (bitmap missing, inconsistent; the reason says which). After a failure nothing was begun; after -ESTALE it
 * may be tried without base. A VM that was frozen or paused goes on when this returns, whatever it returns. */
int source_begin(Source *source, const SourceJob *job, struct timespec *ret_moment, Reason *reterr);

/* The checkpoint from which changes since the job's moment (or longer) are tracked, to be named by the point: the job's, an
 * older one where none could be made, or NULL: none. And its definition, to be kept with the point; may be NULL.
 * The caller frees both. */
int source_checkpoint(Source *source, char **ret_name, char **ret_definition, Reason *reterr);

/* A connection to one disk (index as in the inspection) of the job. From any one thread at a time. */
int source_open_reader(Source *source, size_t disk, const SourceView *view, SourceReader **ret, Reason *reterr);
SourceReader *source_reader_free(SourceReader *reader); /* always NULL */
DEFINE_CLEANUP(SourceReader, source_reader_free)

/* The states of [start, start + length), without gaps, in order, exactly clipped. The door checks that. */
int source_extents(SourceReader *reader, uint64_t start, uint64_t length, SourceExtents *ret, Reason *reterr);
/* All of the bytes or an error; length <= read_max. */
int source_read(SourceReader *reader, void *buffer, size_t length, uint64_t offset, Reason *reterr);

/* Called some twenty times a second while the job runs, from a thread of its own, beside readers and their opening, which
 * may take long, but not beside other calls on the source. 0, or why the job must end at once (-ENOSPC: the scratch space
 * runs out). */
int source_watch(Source *source, Reason *reterr);

/* After all has been read, before the point becomes visible: whether what was read still shows one moment. -ESTALE where not
 * (a VM that was off has been started), and the reason says what happened. */
int source_confirm(Source *source, Reason *reterr);

/* Ends the job and removes its socket and scratch files. Does its best over a restart of the hypervisor's daemon. 0 too
 * where the job is gone already. */
int source_end(Source *source, Reason *reterr);

/* Ends a job of this repository and VM that another process left. 0 where there is none; -EBUSY where the VM has a
 * job that is not ours. */
int source_end_leftovers(Source *source, Reason *reterr);

/* Deletes this repository's checkpoints of the VM but those named. What cannot be deleted now (VM off) is
 * left: -EAGAIN, and the reason says which and why. Others' are never touched. */
int source_keep_checkpoints(Source *source, const char *const *keep, size_t count, Reason *reterr);
