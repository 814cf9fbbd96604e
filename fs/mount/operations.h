/* fs/mount/operations.h - what the kernel asks of a mount, answered.
 *
 * Threads: any number of requests run at once; there is no lock on the path of a read but the cache's own. */
#pragma once

#include "mount/holding.h"
#include "mount/open-file.h"
#include "mount/tree.h"
#include "mount/trigger.h"

struct fuse_lowlevel_ops;
struct fuse_session;

/* A mounted repository; the userdata of its session. */
typedef struct Mount {
        Tree tree;
        Triggers *triggers;
        OpenFiles files;
        Holding holding;
        Prefetcher *prefetcher;
        struct fuse_session *session;
} Mount;

extern const struct fuse_lowlevel_ops mount_operations;
