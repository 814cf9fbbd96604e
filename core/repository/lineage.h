/* core/repository/lineage.h - points with their ancestors, and which of them are complete.
 *
 * All manifests are read once, and each disk is judged once, from its parent's: it costs as much as there are points,
 * however long their chains.
 * Threads: immutable once made. */
#pragma once

#include "repository/manifest.h"

typedef struct LineagePoint {
        char name[POINT_NAME_MAX];
        Manifest *manifest; /* NULL where it cannot be used */
        char *damage;       /* why not; or NULL */
        int error;          /* and the error code of that */
        const char **lost;  /* for each disk: why it is not complete, or NULL; the words are the lineage's */
} LineagePoint;

typedef struct Lineage {
        LineagePoint *points; /* oldest first */
        size_t count;
        Strings reasons;
} Lineage;

/* One point, which is the last, behind the ancestors that its disks need. A point that cannot be read is no failure. */
int lineage_of_point(Vm *vm, const char *name, Lineage *ret, Reason *reterr);
/* All points of the VM. */
int lineage_of_vm(Vm *vm, Lineage *ret, Reason *reterr);
void lineage_clear(Lineage *lineage);

/* Why the point is not complete, NULL where it is. */
const char *lineage_problem(const LineagePoint *point);
