/* core/formats/virtnbdbackup/metadata.h - what a stream says of itself: the JSON in its first frame.
 *
 * Every version's names are known: "virtual-size" and "disk_name" (November 2020), "stream-version" (until May 2021), and
 * those of today. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "formats/virtnbdbackup/window.h"

typedef struct Metadata {
        char *disk;           /* target device; NULL: not told */
        char *checkpoint;     /* NULL: not told */
        char *parent;         /* checkpoint; NULL: none */
        uint64_t size;        /* of the disk, bytes; at most INT64_MAX */
        uint64_t data;        /* bytes of the disk that are in data frames, as it says; UINT64_MAX: not told */
        struct timespec date; /* told without a time zone, and taken as this host's; 0: not told */
        bool incremental;
        bool compressed; /* payloads are LZ4 frames */
        uint64_t end;    /* where in the stream the next frame begins */
} Metadata;

/* Whether it begins as a stream does. 1, 0, or a negative errno where that cannot be read. */
int metadata_begins(ByteStore *bytes, Window *window, Reason *reterr);
/* -EBADMSG; -ENOTSUP for a stream version that is not known; -EIO. */
int metadata_read(ByteStore *bytes, Window *window, Metadata *ret, Reason *reterr);
void metadata_clear(Metadata *metadata);
