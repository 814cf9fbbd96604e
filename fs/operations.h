/* fs/operations.h - what the kernel asks of a mount, answered.
 *
 * Threads: any number of requests run at once; there is no lock on the path of a read but the cache's own. */
#pragma once

#include <stdatomic.h>

#include "tree.h"
#include "trigger.h"

struct fuse_lowlevel_ops;

/* A mounted repository; the userdata of its session. */
typedef struct Mount {
        Tree tree;
        Triggers *triggers;
        atomic_long open_files; /* descriptors that somebody has open in it */
} Mount;

extern const struct fuse_lowlevel_ops mount_operations;
