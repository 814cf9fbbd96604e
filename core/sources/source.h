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
#include "util/io.h"
#include "util/reason.h"

typedef struct Source Source;
typedef struct SourceReader SourceReader;

/* Who opens it; strings are borrowed and outlive the source. */
typedef struct SourceOwner {
        const char *uri;        /* the SOURCE of `add` */
        const char *vm;         /* the VM's name in the repository */
        const char *vm_uuid;    /* must be the VM's; NULL: any (at `add`) */
        const char *repository; /* UUID: names everything that is made in the hypervisor */
        const char *scratch_directory;   /* for scratch files; NULL: the source's choice */
        const atomic_bool *cancel;       /* once true, waits end with -ECANCELED; may be NULL */
        void (*warn)(void *context, const char *line); /* something was left out or done otherwise; one line; may be NULL */
        void *context;
} SourceOwner;

typedef struct SourceDisk {
        char *name;           /* target: "vda" */
        bool tracks_changes;  /* its image can carry a bitmap; else each capture is full */
        char *why_not;        /* "raw image cannot carry a bitmap", where it does not */
        Strings images;       /* identity: the image that the guest writes to first, then its backing files. Each is a
                                 text that stays the same as long as the image is the same one */
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

/* What to begin. Strings are borrowed for the call. */
typedef struct SourceJob {
        const char *checkpoint;      /* to be made with the job, for all disks that can */
        const char *base;            /* checkpoint that incremental disks start from; NULL: none */
        const char *base_definition; /* its definition as source_checkpoint_definition() gave it then; may be NULL */
        const bool *incremental;     /* for each disk of SourceVm, same order */
} SourceJob;

/* A range in one state, as a source tells it. */
typedef struct SourceExtent {
        uint64_t start, length; /* bytes */
        bool dirty;             /* changed since the base; always true without one */
        bool zero;              /* reads as zeroes for sure */
} SourceExtent;

typedef struct SourceExtents {
        SourceExtent *items;
        size_t count, capacity;
} SourceExtents;
void source_extents_clear(SourceExtents *extents);

typedef struct SourceOps {
        const char *name;                  /* "libvirt" */
        bool (*claims)(const char *uri);   /* whether this kind is meant */
        int (*open)(const SourceOwner *owner, Source **ret, Reason *reterr);
        int (*identify)(Source *source, char **ret, Reason *reterr);
        int (*inspect)(Source *source, SourceVm *ret, Reason *reterr);
        int (*begin)(Source *source, const SourceJob *job, struct timespec *ret_moment, Reason *reterr);
        int (*checkpoint_definition)(Source *source, char **ret, Reason *reterr);
        int (*open_reader)(Source *source, size_t disk, bool incremental, SourceReader **ret, Reason *reterr);
        int (*watch)(Source *source, Reason *reterr);
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
        bool multi;             /* more readers of the same disk may be opened beside this one */
};

/* Adds a kind that is asked before those built in. Once at a program's start, before threads; ops are borrowed for good. */
void source_register(const SourceOps *ops);

/* -EINVAL: no kind of source claims the URI. */
int source_open(const SourceOwner *owner, Source **ret, Reason *reterr);
Source *source_free(Source *source); /* always NULL; does not end a job */
DEFINE_CLEANUP(Source, source_free)

/* The UUID of the VM, running or not: what `add` needs. -ENOENT as below. The caller frees *ret. */
int source_identify(Source *source, char **ret, Reason *reterr);

/* Looks at the VM as it is now. -ENOENT: the hypervisor has none; -ESTALE: it has another of that name (UUID);
 * -EHOSTDOWN: it is not running. What cannot be captured is left out of the disks with a warning that names it. */
int source_inspect(Source *source, SourceVm *ret, Reason *reterr);

/* Begins the job on all disks of the last inspection at one moment (*ret_moment, wall clock). -EBUSY: the VM has
 * another job; -ESTALE: the base cannot be used (bitmap missing, inconsistent; the reason says which): nothing was
 * begun, and it may be tried without base. */
int source_begin(Source *source, const SourceJob *job, struct timespec *ret_moment, Reason *reterr);

/* The new checkpoint's definition, to be kept with the point. The caller frees *ret; NULL where there is none. */
int source_checkpoint_definition(Source *source, char **ret, Reason *reterr);

/* A connection to one disk (index as in the inspection) of the job. From any one thread at a time. */
int source_open_reader(Source *source, size_t disk, bool incremental, SourceReader **ret, Reason *reterr);
SourceReader *source_reader_free(SourceReader *reader); /* always NULL */
DEFINE_CLEANUP(SourceReader, source_reader_free)

/* The states of [start, start + length), without gaps, in order, exactly clipped. The door checks that. */
int source_extents(SourceReader *reader, uint64_t start, uint64_t length, SourceExtents *ret, Reason *reterr);
/* All of the bytes or an error; length <= read_max. */
int source_read(SourceReader *reader, void *buffer, size_t length, uint64_t offset, Reason *reterr);

/* Called some twenty times a second while the job runs, from a thread of its own, beside readers but not beside other
 * calls on the source. 0, or why the job must end at once (-ENOSPC: the scratch space runs out). */
int source_watch(Source *source, Reason *reterr);

/* Ends the job and removes its socket and scratch files. Does its best over a restart of the hypervisor's daemon. 0 too
 * where the job is gone already. */
int source_end(Source *source, Reason *reterr);

/* Ends a job of this repository and VM that another process left. 0 where there is none; -EBUSY where the VM has a
 * job that is not ours. */
int source_end_leftovers(Source *source, Reason *reterr);

/* Deletes this repository's checkpoints of the VM but those named. What cannot be deleted now (VM off) is
 * left: -EAGAIN, and the reason says which and why. Others' are never touched. */
int source_keep_checkpoints(Source *source, const char *const *keep, size_t count, Reason *reterr);
