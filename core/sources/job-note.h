/* core/sources/job-note.h - what is done to a VM for a moment and must be undone whatever happens: its file systems are
 * frozen, it is paused.
 *
 * Noted in a file before it is done, and the file goes away once it is undone: whoever comes after a killed capture, its
 * guardian or the next capture, finds it. The place is the same for all of them, whatever their environment: /var/tmp.
 * Threads: any; but one capture at a time has a tag (the VM's lock). */
#pragma once

#include <stdbool.h>

#include "util/reason.h"

typedef struct JobNote {
        int domain_id;       /* of the running VM; one that was started again has another */
        bool frozen, paused; /* or about to be */
} JobNote;

/* tag: as job_tag() makes it. */
int job_note_write(const char *tag, const JobNote *note, Reason *reterr);
/* Whether there is a note of this user's. */
bool job_note_find(const char *tag, JobNote *ret);
void job_note_remove(const char *tag);
