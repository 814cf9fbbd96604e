/* core/formats/raw.h - plain images: the bytes of a disk as they are, holes and all.
 *
 * The format also opens any other plain file, as a disk without holes: what other tools keep beside their disks.
 * Found are files that are called .raw or .img, or begin as disks do (a partition table, a file system). All of a directory
 * are the disks of one point, of the time of the newest. Nothing in such a file tells whether it is whole. */
#pragma once

#include "formats/found.h"
#include "formats/layer.h"

int raw_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr);
int raw_find(FoundDirectory *directory, Reason *reterr);
