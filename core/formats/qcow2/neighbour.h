/* core/formats/qcow2/neighbour.h - finds the files that a qcow2 image names: its backing file and its data file.
 *
 * Nothing is followed out of the root. A name is taken as QEMU does, relative to the image's directory or absolute; where
 * that leads nowhere within the root, the directory has been moved, and a file of that base name beside the image is it. */
#pragma once

#include <stdbool.h>
#include <sys/stat.h>

#include "util/reason.h"

typedef struct Neighbour {
        char *path;     /* below the root */
        struct stat st; /* of a regular file */
        bool moved;     /* it was found by its base name */
} Neighbour;

/* image: path of the image that names it. -ENOENT where there is none, -ENOTSUP where the name is none of a file (an NBD
 * server, say), in words that go behind the name. */
int neighbour_find(int root_fd, const char *image, const char *name, Neighbour *ret, Reason *reterr);
void neighbour_clear(Neighbour *neighbour);
