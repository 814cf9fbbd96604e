/* core/repository/manifest.h - what makes a restore point: one sealed JSON file.
 *
 * points/NAME.json:
 *     {"format": "virtbackupfs point", "version": 1, "features": [],      unknown features: refused
 *      "name": NAME,                                                      as the file's
 *      "vm": NAME, "vm_uuid": UUID, "serial": 3,                          serials grow with names within a VM
 *      "capture": "2026-11-20T010203Z.9f3c21aa",                          the directory below data/
 *      "kind": "full"|"incremental"|"differential", "time": RFC 3339, "parent": NAME|null, "checkpoint": NAME|null,
 *      "full_checkpoint": NAME|null,                                      of the full point, for differential ones
 *      "disks": [{"name": "vda", "size": N, "allocated": N, "kind": as above, "why": TEXT|null,
 *                 "images": [ID, …],                                      the image's identity, top first
 *                 "unreadable": N, "backing": TEXT|null,
 *                 "layers": [{"format": "native", "file": "vda.layer", "length": N, "seal": "16 hex digits"}]}],
 *      "files": [{"name": "domain.xml", "length": N, "seal": "16 hex digits",
 *                 "linked": true,                                         where it is the parent's, by a second name
 *                 "layer": as above}]}                                    of a long file, stored under another name
 * Layers of a disk stand newest first. The parent of a differential point is a full one. A parent's name sorts before its
 * child's. Unknown keys are ignored.
 * Threads: a Manifest is immutable once read (but for what is allocated, which may be found out later); references are
 * counted atomically. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "repository/point-name.h"
#include "repository/vm.h"
#include "util/cleanup.h"
#include "util/reason.h"

typedef enum PointKind {
        POINT_FULL,
        POINT_INCREMENTAL,
        POINT_DIFFERENTIAL, /* what changed since the last full one */
} PointKind;

typedef struct ManifestLayer {
        char *format;
        char *file;       /* below the manifest's place */
        char *member;     /* as LayerLocation has it; or NULL. Ours have none */
        uint64_t length;  /* bytes of the file */
        uint64_t seal;
} ManifestLayer;

/* Of a disk that another tool stored: to be found by asking its layers, see chain/allocation.h. */
#define ALLOCATED_UNKNOWN UINT64_MAX

typedef struct ManifestDisk {
        char *name;
        uint64_t size;      /* bytes */
        uint64_t allocated; /* bytes that are no hole at this point, all of the chain; see ALLOCATED_UNKNOWN */
        uint64_t unreadable; /* bytes that the source could not deliver */
        PointKind kind;
        char *why;          /* why it is full in a point that is not, or was compared; or NULL */
        char *backing;      /* the file that has what no layer has, for people; NULL: nothing is left out */
        char *problem;      /* why not all of it can be read whatever becomes of its ancestors; or NULL. Ours have none */
        char *note;         /* what a user has to know of it; or NULL. Ours have none */
        Strings images;
        ManifestLayer *layers;
        size_t layer_count;
        uint64_t data;      /* bytes that are data in its layers and those they rest on, at most; 0: not known, as of ours */
        bool has_stored;    /* the layers take `stored` bytes, which is not the length of their files */
        uint64_t stored;
} ManifestDisk;

typedef struct ManifestFile {
        char *name;
        uint64_t length;
        uint64_t seal; /* checksum() of the content; or of what format says */
        char *format;  /* NULL: "kept", as ours are */
        char *file;    /* below the manifest's place; NULL: the name */
        char *member;  /* as LayerLocation has it; or NULL */
        uint64_t file_length; /* of the file that has it as a member; 0: the length */
        bool linked;   /* it is the parent's file as well, and takes no room */
} ManifestFile;

typedef struct Manifest {
        int references; /* atomic */
        char name[POINT_NAME_MAX];
        char *vm, *vm_uuid, *capture; /* vm: when read, the name of the directory it lies in now */
        char *place;  /* what goes before the names of its files, below the root of vm_layers() */
        uint32_t serial;
        PointKind kind;
        struct timespec time;
        char *parent;     /* or NULL */
        char *checkpoint; /* or NULL */
        char *full_checkpoint; /* to be kept beside it; or NULL */
        ManifestDisk *disks;
        size_t disk_count;
        ManifestFile *files;
        size_t file_count;
} Manifest;

/* Reads a point's manifest. -ENOENT: no such point; -EBADMSG: damaged; -ENOTSUP: newer version. */
int manifest_read(Vm *vm, const char *name, Manifest **ret, Reason *reterr);

/* Makes the point visible, whole, at once: create-if-absent, then the directory is synced. What it names has been
 * synced before. -EEXIST where the name is taken; -EINVAL for what manifest_read() would refuse. */
int manifest_commit(Vm *vm, const Manifest *manifest, Reason *reterr);

/* All zeroes but the reference; the strings are the manifest's (malloc). */
int manifest_new(Manifest **ret);
Manifest *manifest_ref(Manifest *manifest);
Manifest *manifest_unref(Manifest *manifest); /* always NULL */
DEFINE_CLEANUP(Manifest, manifest_unref)

const char *point_kind_name(PointKind kind);
const ManifestDisk *manifest_find_disk(const Manifest *manifest, const char *name); /* NULL: not in this point */
uint64_t manifest_disk_allocated(const ManifestDisk *disk); /* or ALLOCATED_UNKNOWN */
/* What has been found is remembered: the one thing that changes in a manifest. */
void manifest_disk_set_allocated(const ManifestDisk *disk, uint64_t allocated);
uint64_t manifest_disk_stored(const ManifestDisk *disk); /* bytes of its layers' files */
uint64_t manifest_stored(const Manifest *manifest); /* and of files that the parent does not have as well */

/* The layer's place as layer_open() wants it; ret->path is allocated, the rest borrowed from the manifest. */
int manifest_layer_location(const Manifest *manifest, const ManifestLayer *layer, LayerLocation *ret, Reason *reterr);

/* How far it is where the disk is just being unpacked (layer_progress()): false: it is not. */
bool manifest_disk_progress(Vm *vm, const Manifest *manifest, const ManifestDisk *disk, uint64_t *ret_done,
                            uint64_t *ret_total);

const ManifestFile *manifest_find_file(const Manifest *manifest, const char *name); /* NULL: not in this point */
/* A file kept with the point, to be read by ranges with layer_read_filled(). -EIO where damaged. */
int manifest_open_file(Vm *vm, const Manifest *manifest, const ManifestFile *file, Layer **ret, Reason *reterr);
/* As layer_check(). */
int manifest_check_file(Vm *vm, const Manifest *manifest, const ManifestFile *file, const LayerCheck *check, Reason *reterr);
int manifest_check_disk(Vm *vm, const Manifest *manifest, const ManifestDisk *disk, const LayerCheck *check, Reason *reterr);
/* The whole of it, with a NUL behind. The caller frees *ret. -EIO where damaged, -EFBIG. */
int manifest_read_file(Vm *vm, const Manifest *manifest, const char *name, char **ret, size_t *ret_length, Reason *reterr);
