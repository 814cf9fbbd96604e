/* fs/mount/waiting.h - a request that may have to wait until an archive has been unpacked as far as it reads.
 *
 * It stops waiting once its reader is interrupted or the mount ends. As whoever waits takes one of the threads that answer,
 * only half of them may. Threads: any; a Waiting belongs to the thread that began it. */
#pragma once

#include <stdbool.h>

struct fuse_req;
struct fuse_session;

typedef struct Waiting {
        struct fuse_req *req;
        struct fuse_session *session;
        unsigned limit;  /* of those who wait */
        bool waits, refused;
} Waiting;

/* Until waiting_end(), for whatever this thread does. light: as util/patience.h has it. */
void waiting_begin(Waiting *waiting, struct fuse_req *req, struct fuse_session *session, unsigned threads, bool light);

/* The error to answer with where rc is one: -EINTR and -EAGAIN where it was given up, which what is between here and the
 * archive takes for an error of reading. */
int waiting_end(Waiting *waiting, int rc);

/* This thread never waits: what it does is done for nobody yet. */
void waiting_never(void);
