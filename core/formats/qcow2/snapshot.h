/* core/formats/qcow2/snapshot.h - internal snapshots of a qcow2 image: earlier states of the disk in the same file. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "formats/qcow2/header.h"
#include "util/cleanup.h"
#include "util/reason.h"

typedef struct Qcow2Snapshot {
        char *id;             /* unique in the image */
        char *name;
        struct timespec time; /* when it was taken */
        Qcow2State state;
        uint32_t l1_count;    /* entries that its table has */
} Qcow2Snapshot;

typedef struct Qcow2Snapshots {
        Qcow2Snapshot *items;
        size_t count;
} Qcow2Snapshots;

/* -EBADMSG where the table is damaged. What each names is not checked yet: one that is damaged leaves others usable. */
int qcow2_snapshots_load(ByteStore *image, const Qcow2Header *header, Qcow2Snapshots *ret, Reason *reterr);
/* What a snapshot names, of an image of this many bytes: -EBADMSG in words that go behind the image's name. */
int qcow2_snapshot_check(const Qcow2Header *header, const Qcow2Snapshot *snapshot, uint64_t file_size, Reason *reterr);
void qcow2_snapshots_clear(Qcow2Snapshots *snapshots);
