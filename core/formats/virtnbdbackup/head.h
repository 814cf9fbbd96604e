/* core/formats/virtnbdbackup/head.h - what the two ends of a stream tell, kept in the store's memory from when it was found
 * until it is opened: a chain of a thousand increments is opened at once.
 *
 * Of files by themselves; members of zip files are not kept. Threads: any. */
#pragma once

#include "formats/layer.h"
#include "formats/virtnbdbackup/shape.h"

/* Not being able to only costs time. */
void head_remember(LayerStore *store, const LayerLocation *location, const Metadata *metadata, const Shape *shape);

/* As shape_read() of the stream's metadata gives it, from memory or else from the file. -EBADMSG, -ENOTSUP, -EIO. */
int head_read(LayerStore *store, const LayerLocation *location, ByteStore *bytes, uint64_t grown_from, Shape *ret,
              Reason *reterr);
