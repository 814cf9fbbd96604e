/* core/capture/draft.h - the new point while it is being made: its directory below data/, the files in it, and the
 * manifest that makes it visible. */
#pragma once

#include <stdbool.h>
#include <time.h>

#include "capture/guardian.h"
#include "repository/manifest.h"

typedef struct Draft {
        Vm *vm;             /* borrowed */
        Manifest *manifest; /* as far as it is known; NULL before draft_begin() */
        Manifest *previous; /* of the newest point, or NULL */
        bool commit_tried;
} Draft;

/* Eight hexadecimal digits by chance, for names that are never given twice. */
int draft_random_text(char ret[static 9], Reason *reterr);

/* Names it, after the newest point ("" where there is none), and makes its directory. checkpoint: NULL where none could be
 * made. */
int draft_begin(Draft *draft, const char *newest, struct timespec moment, const char *checkpoint, Reason *reterr);

/* The same under a name and a number that are known, with a parent or NULL (ours; borrowed for the call). */
int draft_begin_named(Draft *draft, const char *name, uint32_t serial, struct timespec moment, Manifest *parent,
                      Reason *reterr);

/* Keeps a file with the point: one that is what it was at the newest point before is not stored again. */
int draft_keep_file(Draft *draft, const char *name, const void *content, size_t length, Reason *reterr);

/* Syncs the directories and makes the point visible, under another name where its own has been taken. 1 where it is
 * visible though not all went well: what is visible is whole, but reterr says what is to be told. */
int draft_commit(Draft *draft, Guardian *guardian, Reason *reterr);

/* The same under its own name alone, without a guardian. -EEXIST: that has been taken. */
int draft_commit_named(Draft *draft, Reason *reterr);

/* Removes what is there of it, unless it became visible. */
void draft_discard(Draft *draft);

void draft_clear(Draft *draft);
