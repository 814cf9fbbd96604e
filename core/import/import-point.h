/* core/import/import-point.h - one point of another tool becomes one of ours. Threads: as import.h. */
#pragma once

#include "import/import.h"
#include "repository/manifest.h"

typedef struct ImportPoint {
        Vm *vm;                 /* ours, whose lock is held */
        Vm *from;
        const Manifest *stored; /* the other tool's; complete */
        Manifest *parent;       /* ours, of the parent, which has the name that it had there; or NULL */
        const Manifest *const *folded; /* the other tool's between the two, incomplete: what they hold goes into this one */
        size_t folded_count;
        uint32_t serial;
        size_t number, count;   /* for the progress */
        const ImportOptions *options;
} ImportPoint;

/* All borrowed. *ret_source_failed: the point could not be read, and nothing else was wrong. Nothing is left of one that did
 * not become visible. */
int import_point(const ImportPoint *import, bool *ret_source_failed, Reason *reterr);
