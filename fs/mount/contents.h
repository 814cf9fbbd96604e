/* fs/mount/contents.h - the text of files that are made up when they are opened: info.json, DISK.map. */
#pragma once

#include "mount/tree.h"

/* The caller frees *ret. What goes wrong is logged. */
int contents_make(Tree *tree, const Item *item, char **ret, size_t *ret_length);

/* The text of info.json: what `list --json` says of the point, and the partitions of its disks. The caller frees *ret. */
int contents_info(Tree *tree, const Item *item, char **ret, size_t *ret_length, Reason *reterr);
