/* core/formats/qcow2/writer.h - writes a qcow2 image of its own, cluster by cluster, from any number of threads.
 *
 * Each cluster lies in the file where there was room when it was first written; neighbours that are written at once are
 * neighbours there. Until it is finished, an image in which something was synced can be gone on with, whatever ended the one
 * that wrote it: qcow2_writer_resume() finds it as the last sync left it, and of what came after some.
 * Ranges begin and end at QCOW2_WRITER_GRAIN, up to qcow2_writer_size(); buffers begin at multiples of DIRECT_GRAIN.
 * Threads: writes, zeroes, reads, zero ranges and syncs from any at once, on ranges that do not overlap; the rest from one.
 * Memory: some MiB, and 2 MiB for each TiB of the file. */
#pragma once

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "util/cleanup.h"
#include "util/direct.h"
#include "util/reason.h"

#define QCOW2_WRITER_GRAIN (64u << 10) /* bytes */

typedef struct Qcow2Writer Qcow2Writer;

typedef struct Qcow2WriterFile {
        DirectFile file;      /* for reading and writing, nobody else's; both stay the caller's */
        const char *name;     /* for people; borrowed, as the next */
        const char *backing;  /* the name of a qcow2 image that has what is not written; NULL: zeroes */
        uint64_t disk_size;   /* bytes */
} Qcow2WriterFile;

/* Makes it anew, whatever the file has. -EFBIG: no image can be that large; -ENOSPC. */
int qcow2_writer_new(const Qcow2WriterFile *file, Qcow2Writer **ret, Reason *reterr);
/* Goes on with what the file has: 1, or 0 where it has nothing that we left of the same disk. All of it is checked.
 * cancel may be NULL. */
int qcow2_writer_resume(const Qcow2WriterFile *file, const atomic_bool *cancel, Qcow2Writer **ret, Reason *reterr);
/* What was not synced is lost. Always NULL. */
Qcow2Writer *qcow2_writer_free(Qcow2Writer *writer);
DEFINE_CLEANUP(Qcow2Writer, qcow2_writer_free)

uint64_t qcow2_writer_size(const Qcow2Writer *writer); /* bytes: the disk's, rounded up to grains */

int qcow2_writer_write(Qcow2Writer *writer, const void *buffer, size_t length, uint64_t offset, Reason *reterr);
int qcow2_writer_zero(Qcow2Writer *writer, uint64_t length, uint64_t offset, Reason *reterr);
/* -EOPNOTSUPP: it is the backing file that has some of it. */
int qcow2_writer_read(Qcow2Writer *writer, void *buffer, size_t length, uint64_t offset, Reason *reterr);
/* How many bytes from offset on are zeroes by the tables alone; any range. */
uint64_t qcow2_writer_zeroes(Qcow2Writer *writer, uint64_t length, uint64_t offset);
int qcow2_writer_sync(Qcow2Writer *writer, Reason *reterr);
/* Makes an image of it that everybody can read, on stable storage. Only qcow2_writer_free() may follow. */
int qcow2_writer_finish(Qcow2Writer *writer, Reason *reterr);
