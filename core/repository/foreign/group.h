/* core/repository/foreign/group.h - which findings are of one point, and which points of one VM.
 *
 * Threads: one. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "formats/found.h"

#define GROUP_NONE SIZE_MAX

typedef struct GroupPoint {
        const char *key;
        const FoundLayer *const *layers; /* sorted by disk */
        size_t layer_count;
        const FoundKept *const *kept;
        size_t kept_count;
        const char *parent_key; /* NULL: none of its layers needs one */
        size_t parent;          /* index of the point; GROUP_NONE: none, or lost */
        bool loops;             /* its parents lead back to it: parent is GROUP_NONE */
        struct timespec time;   /* the newest of its layers', or without any of its kept files' */
        struct timespec shown;  /* that, or its parent's where that is later: what its name says */
        size_t depth;           /* number of its ancestors */
        size_t vm;              /* index of its VM */
} GroupPoint;

typedef struct GroupVm {
        const char *name;  /* that a layer gives, or NULL */
        const char *uuid;  /* likewise */
        char *directory;   /* of its first file; "" for the root */
} GroupVm;

typedef struct Groups {
        const FoundLayer **layers; /* sorted by point and disk */
        const FoundKept **kept;    /* sorted by point and name */
        GroupPoint *points;        /* sorted by key */
        size_t point_count;
        GroupVm *vms;
        size_t vm_count;
} Groups;

/* Borrows the findings. -ENOMEM. */
int groups_make(const Findings *findings, Groups *ret);
void groups_clear(Groups *groups);

/* The point of this key; GROUP_NONE. */
size_t groups_find(const Groups *groups, const char *key);
