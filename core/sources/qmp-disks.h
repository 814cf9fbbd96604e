/* core/sources/qmp-disks.h - the disks of a QEMU, as its monitor tells them: query-block and query-named-block-nodes.
 *
 * A disk is what a device of the guest has for a medium. It is named by the device's id, or else by that of its drive
 * (-drive), or by its node: what of it can be a disk's name, made unique by a number.
 * Its bitmaps are in the node of its image's format, below filters such as throttle: where that is qcow2 of version 3 they
 * are kept in the image, elsewhere they last as long as QEMU runs.
 * All of it is untrusted; counts and lengths are bounded. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"
#include "util/reason.h"
#include "util/strings.h"

#define QMP_DISKS_MAX 1024

typedef struct QmpBitmap {
        char *name;
        bool recording;    /* it is on: what is written is noted in it */
        bool inconsistent; /* QEMU was killed while it was in use: it says nothing */
} QmpBitmap;

typedef struct QmpNode {
        char *name, *driver, *file;
        bool read_only;
        QmpBitmap *bitmaps; /* those that have names */
        size_t bitmap_count;
} QmpNode;

typedef struct QmpNodes {
        QmpNode *items;
        size_t count;
} QmpNodes;

typedef struct QmpDisk {
        char *name;
        const char *left_out; /* "it has no medium": static; NULL: it can be captured. What follows is only where it can */
        char *node;           /* what the device reads and writes */
        char *bitmap_node;    /* what carries its bitmaps */
        bool persistent;      /* and keeps them when QEMU ends */
        bool encrypted;       /* by QEMU: what is read from it is decrypted */
        uint64_t size;        /* bytes */
        char *backing;        /* as SourceDisk has it */
        Strings images;       /* as SourceDisk has them */
} QmpDisk;

typedef struct QmpDisks {
        QmpDisk *items;
        size_t count;
} QmpDisks;

void qmp_nodes_clear(QmpNodes *nodes);
void qmp_disks_clear(QmpDisks *disks);

/* What query-named-block-nodes returned. -EPROTO, -ENOMEM. */
int qmp_nodes_parse(const json_t *answer, QmpNodes *ret, Reason *reterr);
const QmpNode *qmp_nodes_find(const QmpNodes *nodes, const char *name); /* NULL: none */
const QmpBitmap *qmp_node_bitmap(const QmpNode *node, const char *name);

/* What query-block returned. directory: QEMU's working directory, where paths in it are those of this machine, so that files
 * can be looked at ("": it is not known); NULL: they are another's. */
int qmp_disks_parse(const json_t *answer, const QmpNodes *nodes, const char *directory, QmpDisks *ret, Reason *reterr);
