/* core/formats/virtnbdbackup/archive.h - the members of a zip file, read in place.
 *
 * The tool stores what it writes to standard output so, without compressing it again.
 * Threads: an archive belongs to one. */
#pragma once

#include <stdbool.h>
#include <time.h>

#include "formats/byte-store.h"

typedef struct ArchiveMember {
        char *name;      /* as it stands there: it may have any character but NUL */
        uint64_t offset; /* in the file; valid where it is stored */
        uint64_t length; /* bytes */
        uint32_t crc;    /* of the content, as the directory has it */
        struct timespec time;
        bool stored; /* neither compressed nor encrypted */
} ArchiveMember;

typedef struct Archive { /* zeroed: empty */
        ArchiveMember *members;
        size_t count;
} Archive;

/* -EBADMSG where it is no zip file, or a damaged one. */
int archive_read(ByteStore *bytes, Archive *ret, Reason *reterr);
void archive_clear(Archive *archive);

const ArchiveMember *archive_find(const Archive *archive, const char *name); /* the first; NULL: none */

/* The member's bytes. Takes those of the archive, also where it fails. -ENOTSUP where it is not stored. */
int archive_open(ByteStore *bytes, const ArchiveMember *member, ByteStore **ret, Reason *reterr);
