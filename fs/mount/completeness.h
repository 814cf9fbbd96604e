/* fs/mount/completeness.h - which points are complete, for those who ask of many, as a walk over the tree does.
 *
 * All points of a VM are judged at once, from manifests that are each read once, and the judgement serves for a second:
 * info.json of a thousand points costs a thousand manifests, not half a million.
 * Threads: any. */
#pragma once

#include "mount/catalogue.h"

typedef struct Completeness Completeness;

int completeness_new(Completeness **ret);
Completeness *completeness_free(Completeness *completeness); /* always NULL */

/* Why the point is not complete; NULL where it is. The caller frees *ret. -ENOENT where there is no such point. */
int completeness_problem(Completeness *completeness, SharedVm *vm, const char *point, char **ret, Reason *reterr);
