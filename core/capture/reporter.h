/* core/capture/reporter.h - tells how a capture goes: the state in the repository, and the caller's progress.
 *
 * A thread of its own writes the state about once a second and at changes, since writing may take long on a busy disk.
 * Threads: reporter_add_done() from any; all else from the capture's. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "capture/options.h"
#include "repository/capture-state.h"
#include "repository/manifest.h"
#include "sources/source.h"
#include "util/cleanup.h"

typedef struct Reporter Reporter;

/* Writes "running" before it returns: a capture that cannot is not accepted. Borrows both. */
int reporter_new(Vm *vm, const CaptureOptions *options, Reporter **ret, Reason *reterr);
/* Starts telling by itself. */
int reporter_start(Reporter *reporter, Reason *reterr);
Reporter *reporter_free(Reporter *reporter); /* always NULL */
DEFINE_CLEANUP(Reporter, reporter_free)

/* As it turns out; auto until then. */
int reporter_set_kind(Reporter *reporter, PointKind kind);
int reporter_set_disks(Reporter *reporter, const SourceVm *vm);
void reporter_set_total(Reporter *reporter, size_t disk, uint64_t total);
void reporter_add_done(Reporter *reporter, size_t disk, uint64_t bytes);

/* For what the capture waits, or NULL: it goes on. */
void reporter_set_waits(Reporter *reporter, const char *words);

/* Stops the thread and writes how it ended. */
int reporter_succeed(Reporter *reporter, const char *point, Reason *reterr);
int reporter_fail(Reporter *reporter, const char *why, Reason *reterr);
