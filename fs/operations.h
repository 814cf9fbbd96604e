/* fs/operations.h - what the kernel asks of a mount, answered.
 *
 * Threads: any number of requests run at once; there is no lock on the path of a read but the cache's own. */
#pragma once

#include <pthread.h>
#include <stdatomic.h>

#include "tree.h"
#include "trigger.h"

struct fuse_lowlevel_ops;
typedef struct OpenFile OpenFile;

/* A mounted repository; the userdata of its session. */
typedef struct Mount {
        Tree tree;
        Triggers *triggers;
        atomic_long open_files; /* descriptors of files that somebody has open in it */
        pthread_mutex_t lock;   /* guards the list of them; taken to open and to close only */
        OpenFile *files;
} Mount;

extern const struct fuse_lowlevel_ops mount_operations;

/* Closes what was open when the connection ended: the kernel does not. No request runs any more. */
void mount_close_files(Mount *mount);
