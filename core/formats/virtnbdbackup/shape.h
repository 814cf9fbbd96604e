/* core/formats/virtnbdbackup/shape.h - a stream as a whole: where its frames lie and how their sizes are told.
 *
 * Threads: immutable. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "formats/byte-store.h"
#include "formats/virtnbdbackup/metadata.h"

typedef struct Shape {
        ByteStore *bytes; /* borrowed */
        uint64_t disk_size;
        uint64_t frames; /* where the first frame behind the metadata begins */
        uint64_t zero_from; /* what no frame tells of is absent before this, and zeroes from it on: 0 in a base */
        bool compressed;
        bool has_trailer; /* the next two are valid; else the sizes of compressed payloads are found by looking at them */
        uint64_t trailer; /* where the JSON begins */
        uint64_t trailer_end;
        bool ends; /* as a whole stream does; else it has been cut off: compressed ones perhaps in the trailer alone */
} Shape;

/* Looks at the end. The metadata are those of the stream; grown_from: see member.h. -EIO. */
int shape_read(ByteStore *bytes, const Metadata *metadata, uint64_t grown_from, Shape *ret, Reason *reterr);
