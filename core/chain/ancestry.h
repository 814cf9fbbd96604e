/* core/chain/ancestry.h - reads the manifests of a point's ancestors, one after the other, as a chain is followed.
 *
 * The parent of a point is mostly the point before it in the list: so after a few, those before are read several at a time,
 * which is what opening a long chain from a cold disk costs.
 * Threads: one. */
#pragma once

#include "repository/manifest.h"
#include "util/cleanup.h"

typedef struct Ancestry Ancestry;

/* Borrows the VM. */
int ancestry_new(Vm *vm, Ancestry **ret);
Ancestry *ancestry_free(Ancestry *ancestry); /* always NULL */
DEFINE_CLEANUP(Ancestry, ancestry_free)

/* As manifest_read(). */
int ancestry_read(Ancestry *ancestry, const char *name, Manifest **ret, Reason *reterr);
