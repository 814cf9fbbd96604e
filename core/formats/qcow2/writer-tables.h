/* core/formats/qcow2/writer-tables.h - the tables of an image that is written: which cluster of the disk lies where.
 *
 * The L1 table is in memory, of the L2 tables those that are in use, a bounded number. An entry is 0 (nothing was written),
 * QCOW2_ZERO, or QCOW2_COPIED with the offset of a cluster of its own.
 * Invariant: a table comes to the file only when what it tells of is there on stable storage. So whatever ends us, no entry
 * of an image that was not finished is one that cannot be.
 * Threads: any; functions that want the lock say so. The clusters of the file (writer-space.h) are under the same lock. Lock
 * order: that of flushing, this one. I/O under this one is the reading of a table alone. */
#pragma once

#include <stdatomic.h>

#include "formats/qcow2/writer-space.h"
#include "util/cleanup.h"

typedef struct WriterTables WriterTables;

/* All are borrowed. */
int writer_tables_new(const WriterPlan *plan, const DirectFile *file, WriterSpace *space, const char *name,
                      WriterTables **ret, Reason *reterr);
WriterTables *writer_tables_free(WriterTables *tables); /* always NULL; what was not flushed is lost */
DEFINE_CLEANUP(WriterTables, writer_tables_free)

/* Those that the file has, with all that they refer to claimed: 1, or 0 where they make no sense. cancel may be NULL. */
int writer_tables_load(WriterTables *tables, const atomic_bool *cancel, Reason *reterr);

void writer_tables_lock(WriterTables *tables);
void writer_tables_unlock(WriterTables *tables);

/* With the lock, which both may let go of for a while before they return; what they give is good until it is let go of the
 * next time: WRITER_ENTRIES big-endian entries of L2 table number `index`. peek: NULL where there is no such table, which
 * tells as much as zeroes; make: it is going to be changed, and is made where there is none. */
int writer_tables_peek(WriterTables *tables, uint64_t index, const unsigned char **ret, Reason *reterr);
int writer_tables_make(WriterTables *tables, uint64_t index, unsigned char **ret, Reason *reterr);

/* Without the lock: what was written to the file before, then the tables, are on stable storage. */
int writer_tables_flush(WriterTables *tables, Reason *reterr);
