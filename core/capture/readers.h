/* core/capture/readers.h - the connections to one disk, shared by all threads that read it, and patience with them.
 *
 * A connection that is lost goes away and the others carry on: what it had been asked for is asked again. What else is done
 * about errors is the policy's; but for SOURCE_ERROR_REPORT a new connection is opened where none is left.
 * Threads: any; each call takes a connection for itself, and waits for one. */
#pragma once

#include "capture/options.h"
#include "capture/rate.h"
#include "capture/stop.h"
#include "sources/source.h"

#define READERS_MAX 4 /* connections */

/* All borrowed. */
typedef struct ReadersPlan {
        int (*open)(void *context, SourceReader **ret, Reason *reterr); /* any thread */
        void *context;
        SourceErrorPolicy policy;
        Rate *rate; /* of what is read; may be NULL */
        const Stop *stop;
} ReadersPlan;

typedef struct Readers Readers;

/* Opens the first. */
int readers_open(const ReadersPlan *plan, Readers **ret, Reason *reterr);
Readers *readers_free(Readers *readers); /* always NULL; no call is under way */
DEFINE_CLEANUP(Readers, readers_free)

/* Opens as many as are worth having, where the source allows several. Those that there are will do. */
void readers_add_more(Readers *readers);

uint64_t readers_size(const Readers *readers);
uint64_t readers_best(const Readers *readers); /* read_best */

int readers_extents(Readers *readers, uint64_t start, uint64_t length, SourceExtents *ret, Reason *reterr);

/* All of the bytes, of any length, or an error. patient: what the source refuses is asked for again, as the policy says. */
int readers_read(Readers *readers, void *buffer, size_t length, uint64_t offset, bool patient, Reason *reterr);

/* Whether a failure is that of the range alone, and may be skipped: the policy says so, and there are connections. */
bool readers_may_skip(Readers *readers);
