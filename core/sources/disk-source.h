/* core/sources/disk-source.h - a disk that has a URI of its own: one table for all kinds of such URIs.
 *
 * A VM that no hypervisor tells us of is a list of disks, "vda=nbd://… vdb=file:///…" (disk-list.h makes a Source of them).
 * Life of each: open, inspect, begin, then any number of readers, then end; what a killed capture left is found and ended
 * by end_leftovers. There is no checkpoint to be made: a bitmap that somebody else keeps may be named in the URI.
 * Threads: as for a Source. */
#pragma once

#include "sources/source.h"

typedef struct DiskSource DiskSource;

typedef struct DiskSourceOps {
        const char *name;                /* "nbd" */
        bool (*claims)(const char *uri);
        /* -EINVAL where the URI is not understood. owner, disk and uri are borrowed. */
        int (*open)(const SourceOwner *owner, const char *disk, const char *uri, DiskSource **ret, Reason *reterr);
        /* The URI as it is to be kept, relative paths in it made absolute; NULL: as it is. The caller frees *ret. */
        int (*settle)(DiskSource *source, char **ret, Reason *reterr);
        /* Fills all of *ret but the name. tracks_changes: the bitmap that the URI names is there and can be used. */
        int (*inspect)(DiskSource *source, SourceDisk *ret, Reason *reterr);
        /* What is to be read is open and stays as it is from here on. */
        int (*begin)(DiskSource *source, const SourceView *view, Reason *reterr);
        int (*open_reader)(DiskSource *source, const SourceView *view, SourceReader **ret, Reason *reterr);
        int (*watch)(DiskSource *source, Reason *reterr);   /* as source_watch(); NULL: there is nothing to watch */
        int (*confirm)(DiskSource *source, Reason *reterr); /* as source_confirm(); NULL: nothing can be told */
        int (*end)(DiskSource *source, Reason *reterr);
        int (*end_leftovers)(DiskSource *source, Reason *reterr); /* NULL: a killed capture leaves nothing */
        void (*free)(DiskSource *source);
} DiskSourceOps;

/* Implementations embed this as their first member; the fields below ops are filled in by who opens it. */
struct DiskSource {
        const DiskSourceOps *ops;
        const SourceOwner *owner;
        const char *disk;
        /* Set by the implementation, freed by who opened it: */
        char *bitmap;     /* that the URI names, as inspect found it; NULL: none */
        char *checkpoint; /* what the new point is to say of this disk for its own checkpoint; NULL: the bitmap */
};
