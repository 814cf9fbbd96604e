/* core/formats/qcow2/family.h - the qcow2 images of a directory, and the images below them wherever in the root those are.
 *
 * Threads: one; what it reads it reads in several at once. */
#pragma once

#include <stddef.h>

#include "formats/qcow2/image.h"

typedef struct Family {
        FoundDirectory *directory;
        Image **images;
        size_t count;
        Image **by_entry; /* for each entry of the directory; NULL: none of ours */
} Family;

/* Looks into all files of the directory that are not claimed. Those that are images are linked to what they are based on and
 * claimed, as are raw ones that something is based on; those that cannot be used are refused. -ENOMEM. */
int family_load(FoundDirectory *directory, Family *ret, Reason *reterr);
void family_clear(Family *family);
