/* core/capture/watcher.h - looks after a capture from threads of its own: one for what the user wants and the guardian, one
 * for the job in the hypervisor (source_watch), which may not answer. Only this may end a capture that is busy.
 *
 * A source belongs to one thread: but for opening readers, which the watcher does not mind, the capture takes it back for a
 * call with watcher_lock_source(). The watcher never waits for it. */
#pragma once

#include "capture/guardian.h"
#include "capture/stop.h"
#include "sources/source.h"
#include "util/cleanup.h"

typedef struct Watcher Watcher;

/* Borrows all; cancel may be NULL. */
int watcher_start(Guardian *guardian, const atomic_bool *cancel, Stop *stop, Watcher **ret, Reason *reterr);
Watcher *watcher_free(Watcher *watcher); /* always NULL; the threads are gone then */
DEFINE_CLEANUP(Watcher, watcher_free)

/* The job runs from here on (NULL: it does no more). */
void watcher_watch(Watcher *watcher, Source *source);

void watcher_lock_source(Watcher *watcher);
void watcher_unlock_source(Watcher *watcher);
