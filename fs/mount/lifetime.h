/* fs/mount/lifetime.h - from when a mount answers until it ends: one thread beside those that answer requests.
 *
 * It looks whether the mount answers, reports that, and then sleeps until a signal asks for the end, the mount has been
 * taken out of this namespace though another one keeps it alive, or the requests have come to an end by themselves. */
#pragma once

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include "util/reason.h"

struct fuse_session;

typedef struct Lifetime {
        struct fuse_session *session;
        const char *mountpoint;
        atomic_long *open_files; /* a lost mount is kept while somebody reads from it: `umount -l` lets people finish */
        const char *hold;        /* what needs the mount: while files are open it does not end for a signal; NULL: it does */
        int ready_fd;            /* for background_ready(); -1: stays in the foreground */
        pthread_t loop;          /* the thread that runs the session's loop */
        pthread_t thread;
        int signals;             /* descriptors: signalfd(2), */
        int stop;                /* readable once the mount is to end, */
        int loop_ended;          /* and once it has */
        dev_t device;
        bool answered;           /* after lifetime_end(): the mount has been usable */
        bool lost;               /* it is no longer mounted here: nothing to unmount */
        Reason reason;           /* why it was not usable */
} Lifetime;

/* Blocks the signals that end a mount, for this thread and those that it starts. In the foreground those that are ignored
 * (nohup, a shell's background job) stay so. Fills in the descriptors. */
int lifetime_init(Lifetime *lifetime, bool foreground, Reason *reterr);
void lifetime_clear(Lifetime *lifetime);

/* Starts the thread; session, mountpoint, open_files, ready_fd and loop are set. */
int lifetime_begin(Lifetime *lifetime, Reason *reterr);

/* The loop has ended: waits for the thread. */
void lifetime_end(Lifetime *lifetime);
