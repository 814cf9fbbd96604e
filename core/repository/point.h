/* core/repository/point.h - what is said of a restore point: the JSON of `list --json` and of `info.json`.
 *
 * A point is complete where its manifest and those of all ancestors that its disks need are there and good.
 * Threads: any. */
#pragma once

#include "repository/manifest.h"
#include "util/json.h"

/* 0: complete. -EBADMSG or -ENOENT with the reason otherwise. Opens manifests, no layers. */
int point_check(Vm *vm, const char *name, Reason *reterr);

/* The object of info.json: "vm" and the point's own (name, kind, time, parent, checkpoint, stored, complete, reason, disks),
 * whether it is complete or not; a damaged one has name, complete, reason, and null or empty for the rest. manifest: NULL
 * where it cannot be used; problem: why the point is not complete, or NULL: whoever asks for many has judged them at once (lineage.h). */
int point_info(Vm *vm, const char *name, const Manifest *manifest, const char *problem, json_t **ret, Reason *reterr);

/* {"name", "uuid", "source", "points": […]}, without "vm" in each; only the given point where point is not NULL. -ENOENT:
 * there is none of that name. */
int vm_describe(Vm *vm, const char *point, json_t **ret, Reason *reterr);

/* The source as it may be shown, without passwords; null where there is none. NULL: no memory. */
json_t *vm_describe_source(const Vm *vm);

/* "2026-…Z" for "latest" and for a point's own name. -ENOENT where there is none. */
int point_resolve(Vm *vm, const char *word, char ret[static POINT_NAME_MAX], Reason *reterr);
