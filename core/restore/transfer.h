/* core/restore/transfer.h - brings the bytes of a disk into a target, and compares them afterwards.
 *
 * Threads: belongs to one. */
#pragma once

#include "chain/chain.h"
#include "restore/journal.h"
#include "restore/restore.h"

typedef struct Transfer Transfer;

/* What is still to be done from the journal's mark on. All borrowed; path: VM/POINT/DISK, for messages. -EIO: some of the
 * disk cannot be read, as far as the map tells, and is not to be skipped. */
int transfer_new(Chain *chain, const char *path, Journal *journal, const RestoreOptions *options, Transfer **ret,
                 Reason *reterr);
Transfer *transfer_free(Transfer *transfer); /* always NULL */
DEFINE_CLEANUP(Transfer, transfer_free)

/* Writes everything but the head, synced, and notes now and then how far it is. */
int transfer_body(Transfer *transfer, Reason *reterr);

/* Writes the head, its beginning last of all, synced: from then on the target is what it should be. */
int transfer_head(Transfer *transfer, Reason *reterr);

/* Reads the target again: the body or the head. -EIO, and where, if it differs. */
int transfer_compare_body(Transfer *transfer, Reason *reterr);
int transfer_compare_head(Transfer *transfer, Reason *reterr);

/* Bytes that are zeroes because they could not be read, those of interrupted restores included. */
uint64_t transfer_skipped(const Transfer *transfer);
