/* core/formats/found.h - what formats find in directories that other tools wrote.
 *
 * A format is shown one directory at a time and tells, for each disk at each moment, where its layer lies and how the tool's
 * own metadata links it to its parent: file times link nothing. Whoever asked makes VMs and points of it.
 * Keys: "point" and "parent" are names that a format gives, unique below the root: they begin with the directory's path.
 * Threads: a FoundDirectory belongs to one thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "formats/layer.h"
#include "util/reason.h"

typedef enum FoundKind { FOUND_FULL, FOUND_INCREMENTAL, FOUND_DIFFERENTIAL } FoundKind;

/* One disk at one moment. All strings are borrowed for the call of found_add_layer(). */
typedef struct FoundLayer {
        const char *vm;         /* the domain that the backup names; NULL: named by its directory */
        const char *vm_uuid;    /* or NULL */
        const char *point;      /* key: layers of the same key are of one point */
        const char *parent;     /* key of the point that has what is absent here; NULL: nothing is absent */
        const char *disk;       /* as the tool names it: target, device, disk id; else the stem of the base image */
        FoundKind kind;
        struct timespec time;   /* that the backup says it shows, else the file's */
        const char *checkpoint; /* or NULL */
        const char *problem;    /* why it cannot be used, in words: the point is shown as incomplete; or NULL */
        const char *note;       /* what a user has to know of it though it can be used; or NULL. Goes into info.json */
        uint64_t size;          /* of the disk, bytes */
        uint64_t stored;        /* bytes that the layer takes */
        uint64_t data;          /* bytes of the disk that are data in it, at most; 0: only a look at all of it could tell */
        LayerLocation location;
        const char *directory;  /* that it was found in, which need not be the file's own; set by found_add_layer() */
} FoundLayer;

/* Something kept beside the disks, read as a layer without holes: a definition, a kernel, RAM. */
typedef struct FoundKept {
        const char *point; /* key; a point that has no disk is shown as well */
        const char *name;  /* that it shall have in the point; "domain.xml" for the VM's definition */
        uint64_t length;   /* bytes */
        struct timespec time;   /* as that of a layer: the point's where it has no disk */
        LayerLocation location; /* a plain file: format "raw", member NULL */
} FoundKept;

/* A name in the directory. */
typedef struct FoundEntry {
        char *name;
        struct stat st; /* as lstat(2) has it */
        bool claimed;   /* no other format is asked, and a directory is not looked into */
} FoundEntry;

/* A file that no format can use, and why. */
typedef struct FoundRefusal {
        char *path;  /* below the root */
        char *words;
} FoundRefusal;

/* All that was found below one root, in the order in which it was. Zeroed: empty. */
typedef struct Findings {
        FoundLayer *layers; /* their strings are owned here */
        size_t layer_count;
        FoundKept *kept;
        size_t kept_count;
        FoundRefusal *refusals;
        size_t refusal_count;
} Findings;

void findings_clear(Findings *findings);

typedef struct FoundDirectory {
        LayerStore *store;   /* paths are below its root */
        const char *path;    /* of the directory; "" for the root itself */
        FoundEntry *entries; /* regular files and directories, sorted by name */
        size_t entry_count;
        Findings *findings;
} FoundDirectory;

/* -ENOMEM. What does not fit together (no such parent, sizes) is judged later, when all has been found. */
int found_add_layer(FoundDirectory *directory, const FoundLayer *layer);
int found_add_kept(FoundDirectory *directory, const FoundKept *kept);
/* Claims the entry and says why it cannot be used: `list` shows that. */
int found_refuse(FoundDirectory *directory, FoundEntry *entry, const char *words);

FoundEntry *found_entry(FoundDirectory *directory, const char *name); /* NULL: none of this name */
/* "DIRECTORY/NAME", or NAME in the root itself. The caller frees it; NULL: no memory. */
char *found_path(const FoundDirectory *directory, const char *name);
/* Tells the file from what another tool may put in its place later: for LayerLocation.seal. */
uint64_t found_seal(const struct stat *st);
