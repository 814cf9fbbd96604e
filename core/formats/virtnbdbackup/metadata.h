/* core/formats/virtnbdbackup/metadata.h - what a stream says of itself: the JSON in its first frame.
 *
 * Every version's names are known: "virtual-size" and "disk_name" (November 2020), "stream-version" (until May 2021), and
 * those of today. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "formats/byte-store.h"

typedef struct Metadata {
        char *disk;           /* target device; NULL: not told */
        char *checkpoint;     /* NULL: not told */
        char *parent;         /* checkpoint; NULL: none */
        uint64_t size;        /* of the disk, bytes; at most INT64_MAX */
        struct timespec date; /* told without a time zone, and taken as this host's; 0: not told */
        bool incremental;
        bool compressed; /* payloads are LZ4 frames */
        uint64_t end;    /* where in the stream the next frame begins */
} Metadata;

/* Whether it begins as a stream does. 1, 0, or a negative errno where that cannot be read. */
int metadata_begins(ByteStore *bytes, Reason *reterr);
/* -EBADMSG; -ENOTSUP for a stream version that is not known; -EIO. */
int metadata_read(ByteStore *bytes, Metadata *ret, Reason *reterr);
void metadata_clear(Metadata *metadata);
