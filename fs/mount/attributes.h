/* fs/mount/attributes.h - what stat(2) says of the things in the tree, and how long the kernel may believe it.
 *
 * It comes from manifests; a layer is opened only for what a disk of another tool takes where its own metadata tell
 * nothing of it (allocation.h). Threads: any. */
#pragma once

#include "mount/tree.h"

/* -ESTALE where it is no more. */
int attributes_get(Tree *tree, const Item *item, struct stat *ret);

/* In seconds: the attributes, and that this name means this thing. */
double attributes_lifetime(Tree *tree, const Item *item);
double attributes_entry_lifetime(Tree *tree, const Item *item);

/* Tells two things apart that had the same number one after the other. */
uint64_t attributes_generation(const Item *item);
