/* core/restore/journal.h - says in the target itself that it is not finished, and how far it is.
 *
 * Its first MiB, which has what makes a disk recognizable (partition tables, boot sectors, the headers of most file systems
 * and volumes), is written last. Until then sealed JSON (sealed-json.h) lies there, in one of two places by turns, so that
 * one is always whole: at 0 and at 64 KiB. A disk of less than a MiB has none: it is done at once.
 *     {"format": "virtbackupfs unfinished restore", "version": 1, "what": TEXT, "sequence": N, "done": BYTES,
 *      "skipped": BYTES}
 * Threads: belongs to one. */
#pragma once

#include <stdint.h>

#include "restore/target.h"

#define JOURNAL_HEAD (1u << 20) /* bytes */

typedef struct Journal {
        DiskTarget *target;   /* borrowed */
        const char *what;     /* which disk of which point; borrowed */
        uint64_t sequence;
        uint64_t done;        /* everything from the head to here is as it must be, durably; JOURNAL_HEAD: nothing is */
        uint64_t skipped;     /* bytes of it that are zeroes because they could not be read */
} Journal;

typedef enum JournalState {
        JOURNAL_NONE,   /* nothing says that the target is an unfinished one */
        JOURNAL_OTHER,  /* it is unfinished, of something else */
        JOURNAL_FOUND,  /* it can be gone on with */
} JournalState;

/* Looks what the target says. Fills *ret in any case. */
int journal_open(DiskTarget *target, const char *what, Journal *ret, JournalState *ret_state, Reason *reterr);

/* The target is not finished from here on, whatever it was: the whole head is the journal's. */
int journal_begin(Journal *journal, Reason *reterr);

/* Everything up to there has been synced. */
int journal_note(Journal *journal, uint64_t done, uint64_t skipped, Reason *reterr);
