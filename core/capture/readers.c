#include "capture/readers.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "util/bytes.h"

#define TRIES_MAX 5         /* beyond the first: some seconds in all */
#define FIRST_PAUSE_MS 100u /* twice as long each time */
#define LOSSES_MAX 4        /* connections that one request may cost */

struct Readers {
        ReadersPlan plan;
        uint64_t size, best;
        bool multi;
        pthread_mutex_t opening; /* of the source, which is asked by one thread at a time; taken before nothing */

        pthread_mutex_t lock; /* of what follows */
        pthread_cond_t back;  /* a connection has come back, or has gone for good */
        SourceReader *idle[READERS_MAX];
        size_t idle_count;
        size_t count;         /* idle, in use, or being opened */
        int first;            /* error and reason of the first that broke since something was read; 0: none did */
        Reason why_first;
        int gone;             /* no connection can be had any more, for this error and reason; 0: it can */
        Reason why_gone;
};

/* What a thread asks for: bytes, or extents where buffer is NULL. */
typedef struct Request {
        void *buffer;
        SourceExtents *extents;
        uint64_t start, length;
        bool patient;
} Request;

typedef enum Outcome {
        DONE,
        REFUSED,       /* the source says no */
        LOST,          /* the connection broke */
        NO_CONNECTION, /* none is left, and none could be opened */
} Outcome;

static int open_another(Readers *readers, SourceReader **ret, Reason *reterr) {
        CLEANUP(source_reader_freep) SourceReader *reader = NULL;
        int rc;

        pthread_mutex_lock(&readers->opening);
        rc = readers->plan.open(readers->plan.context, &reader, reterr);
        pthread_mutex_unlock(&readers->opening);
        if (rc < 0)
                return rc;
        if (reader->size != readers->size)
                return fail(reterr, -ESTALE, "the disk has another size than it had: %llu bytes, not %llu",
                            (unsigned long long) reader->size, (unsigned long long) readers->size);
        *ret = STEAL_PTR(reader);
        return 0;
}

int readers_open(const ReadersPlan *plan, Readers **ret, Reason *reterr) {
        SourceReader *first;
        Readers *readers;
        int rc = plan->open(plan->context, &first, reterr);

        if (rc < 0)
                return rc;
        readers = calloc(1, sizeof *readers);
        if (!readers) {
                source_reader_free(first);
                return fail_oom(reterr);
        }
        readers->plan = *plan;
        readers->size = first->size;
        readers->best = first->read_best;
        readers->multi = first->multi;
        pthread_mutex_init(&readers->opening, NULL);
        pthread_mutex_init(&readers->lock, NULL);
        pthread_cond_init(&readers->back, NULL);
        readers->idle[0] = first;
        readers->idle_count = readers->count = 1;
        *ret = readers;
        return 0;
}

Readers *readers_free(Readers *readers) {
        if (!readers)
                return NULL;
        while (readers->idle_count > 0)
                source_reader_free(readers->idle[--readers->idle_count]);
        pthread_cond_destroy(&readers->back);
        pthread_mutex_destroy(&readers->lock);
        pthread_mutex_destroy(&readers->opening);
        free(readers);
        return NULL;
}

uint64_t readers_size(const Readers *readers) {
        return readers->size;
}

uint64_t readers_best(const Readers *readers) {
        return readers->best;
}

static void give_back(Readers *readers, SourceReader *reader, bool served) {
        pthread_mutex_lock(&readers->lock);
        if (served)
                readers->first = 0;
        readers->idle[readers->idle_count++] = reader;
        pthread_cond_signal(&readers->back);
        pthread_mutex_unlock(&readers->lock);
}

/* No connection can be had any more: whoever waits for one need not. With the lock held. */
static void give_up(Readers *readers, int rc, const Reason *why) {
        if (readers->gone == 0)
                readers->why_gone = *why;
        readers->gone = readers->gone ?: rc;
        pthread_cond_broadcast(&readers->back);
}

/* One connection less: it broke, or could not be opened. */
static void take_off(Readers *readers, bool last_try, int rc, const Reason *why) {
        pthread_mutex_lock(&readers->lock);
        readers->count--;
        if (readers->first == 0) {
                readers->first = rc;
                readers->why_first = *why;
        }
        /* What broke the first one may have broken the others: it is the cause. */
        if (readers->count == 0 && (last_try || readers->plan.policy == SOURCE_ERROR_REPORT))
                give_up(readers, readers->first, &readers->why_first);
        pthread_cond_signal(&readers->back);
        pthread_mutex_unlock(&readers->lock);
}

void readers_add_more(Readers *readers) {
        while (readers->multi && readers->count < READERS_MAX && !stop_requested(readers->plan.stop)) {
                SourceReader *reader = NULL;

                if (open_another(readers, &reader, NULL) < 0)
                        return;
                pthread_mutex_lock(&readers->lock);
                readers->count++;
                pthread_mutex_unlock(&readers->lock);
                give_back(readers, reader, false);
        }
}

/* 1: one was idle; 0: it is for the caller to open one; else none can be had. */
static int take_idle(Readers *readers, SourceReader **ret, Reason *reterr) {
        int rc = 1;

        pthread_mutex_lock(&readers->lock);
        while (readers->idle_count == 0 && readers->count > 0 && !readers->gone)
                pthread_cond_wait(&readers->back, &readers->lock);
        if (readers->idle_count > 0) {
                *ret = readers->idle[--readers->idle_count];
        } else if (readers->gone) {
                rc = readers->gone;
                *reterr = readers->why_gone;
        } else {
                readers->count++;
                rc = 0;
        }
        pthread_mutex_unlock(&readers->lock);
        return rc;
}

static int take(Readers *readers, bool last_try, SourceReader **ret, Reason *reterr) {
        int rc = take_idle(readers, ret, reterr);

        if (rc != 0)
                return rc < 0 ? rc : 0;
        rc = open_another(readers, ret, reterr);
        if (rc < 0)
                take_off(readers, last_try, rc, reterr);
        return rc;
}

static int serve(Readers *readers, SourceReader *reader, const Request *request, Reason *reterr) {
        int rc = 0;

        if (request->extents) {
                source_extents_clear(request->extents);
                return source_extents(reader, request->start, request->length, request->extents, reterr);
        }
        for (uint64_t done = 0, part; rc == 0 && done < request->length; done += part) {
                part = min_u64(request->length - done, reader->read_max);
                rc = rate_take(readers->plan.rate, part, readers->plan.stop);
                if (rc == 0)
                        rc = source_read(reader, (char *) request->buffer + done, part, request->start + done, reterr);
        }
        return rc;
}

/* last_try: where no connection can be opened now, none can be had. */
static Outcome ask_once(Readers *readers, const Request *request, bool last_try, int *ret_rc, Reason *reterr) {
        SourceReader *reader = NULL;
        int rc = take(readers, last_try, &reader, reterr);

        *ret_rc = rc;
        if (rc < 0)
                return NO_CONNECTION;
        rc = serve(readers, reader, request, reterr);
        *ret_rc = rc;
        if (rc < 0 && reader->lost) {
                source_reader_free(reader);
                take_off(readers, false, rc, reterr);
                return LOST;
        }
        give_back(readers, reader, rc == 0);
        return rc < 0 ? REFUSED : DONE;
}

/* Where no connection can be had, the cause of that in place of what followed from it. */
static bool can_go_on(Readers *readers, int *rc, Reason *reason) {
        bool can;

        pthread_mutex_lock(&readers->lock);
        can = readers->gone == 0;
        if (!can) {
                *rc = readers->gone;
                *reason = readers->why_gone;
        }
        pthread_mutex_unlock(&readers->lock);
        return can;
}

bool readers_may_skip(Readers *readers) {
        Reason reason;
        int rc;

        return readers->plan.policy == SOURCE_ERROR_SKIP && !stop_requested(readers->plan.stop) &&
               can_go_on(readers, &rc, &reason);
}

static int ask(Readers *readers, const Request *request, Reason *reterr) {
        bool retries = readers->plan.policy != SOURCE_ERROR_REPORT;
        unsigned refused = 0, unopened = 0, lost = 0;
        Reason reason = REASON_INIT;
        int rc;

        for (;;) {
                unsigned pause_ms = 0;
                bool again = false;

                switch (ask_once(readers, request, unopened >= TRIES_MAX, &rc, &reason)) {
                case DONE:
                        return 0;
                case REFUSED:
                        again = retries && request->patient && refused < TRIES_MAX;
                        pause_ms = FIRST_PAUSE_MS << refused++;
                        break;
                case LOST:
                        again = can_go_on(readers, &rc, &reason) && lost++ < LOSSES_MAX;
                        break;
                case NO_CONNECTION:
                        again = can_go_on(readers, &rc, &reason) && unopened < TRIES_MAX;
                        pause_ms = FIRST_PAUSE_MS << unopened++;
                        break;
                }
                if (rc == -ECANCELED || rc == -ENOMEM || stop_requested(readers->plan.stop))
                        again = false;
                if (again && pause_ms > 0 && stop_pause(readers->plan.stop, pause_ms) < 0)
                        again = false;
                if (!again) {
                        if (reterr)
                                *reterr = reason;
                        return rc;
                }
        }
}

int readers_extents(Readers *readers, uint64_t start, uint64_t length, SourceExtents *ret, Reason *reterr) {
        return ask(readers, &(Request) { .extents = ret, .start = start, .length = length, .patient = true }, reterr);
}

int readers_read(Readers *readers, void *buffer, size_t length, uint64_t offset, bool patient, Reason *reterr) {
        return ask(readers, &(Request) { .buffer = buffer, .start = offset, .length = length, .patient = patient }, reterr);
}
