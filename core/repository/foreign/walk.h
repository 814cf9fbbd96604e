/* core/repository/foreign/walk.h - shows every directory below a root to every format, and gathers what they find.
 *
 * Names that begin with a dot are passed over, symbolic links are not followed; depth and number are bounded. What no format
 * claims becomes a refusal, as does all that cannot be looked at: only a shortage of memory fails a walk.
 * Threads: one at a time for each Walk. */
#pragma once

#include "formats/found.h"
#include "repository/identity.h"

/* Something that was looked at, so that a change is noticed: a directory, or a file that could not be used. */
typedef struct Seen {
        char *path; /* below the root; "." for itself */
        Identity identity;
} Seen;

typedef struct Walk {
        Findings findings;
        Seen *seen;
        size_t seen_count;
        size_t entry_count; /* of all names that were looked at */
} Walk;

int walk_root(LayerStore *store, Walk *ret, Reason *reterr);
void walk_clear(Walk *walk);

/* Whether something that was looked at is another now. */
bool walk_has_changed(const Walk *walk, int root_fd);
