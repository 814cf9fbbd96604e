/* core/restore/partial.h - a new file that is made under the name PATH.partial and gets its own when it is whole.
 *
 * It is locked as long as it is being made, so that no two restores make the same one. A symbolic link is followed: what it
 * points to is replaced. Modes and owners of what is replaced are kept as far as they may be; a new file is its owner's
 * alone.
 * Threads: belongs to one. */
#pragma once

#include <stdbool.h>

#include "util/reason.h"

typedef struct Partial {
        char *path;  /* absolute */
        char *partial_path;
        int fd;      /* of the partial file, for reading and writing */
        bool replace;
        bool found;  /* there was one already, which may be gone on with; else it is empty */
} Partial;

/* -EEXIST: path is a file with content and may not be replaced, or PATH.partial is not ours; -EBUSY: the file is in use, or
 * being made by somebody else; -EISDIR; -ENOENT: no such directory; … */
int partial_open(const char *path, bool replace, Partial *ret, Reason *reterr);

/* One more descriptor of the partial file, for a DirectFile. -1: the file system does not know how. */
int partial_open_direct(const Partial *partial);

/* What was synced before gets its name. */
int partial_finish(Partial *partial, Reason *reterr);

void partial_clear(Partial *partial);  /* what there is stays */
void partial_remove(Partial *partial); /* to be cleared nevertheless */
