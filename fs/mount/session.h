/* fs/mount/session.h - mounting and unmounting, with what libfuse and fusermount3 have to say about it in one line. */
#pragma once

#include <stdbool.h>

#include "mount/mount-options.h"
#include "mount/operations.h"
#include "util/reason.h"

struct fuse_session;

/* The directory to mount on, absolute. -ENOENT, -ENOTDIR, -ENOTCONN (a dead mount); -EINVAL where the mount would hide the
 * repository. The caller frees *ret. */
int mountpoint_resolve(const char *path, const char *repository_path, char **ret, Reason *reterr);

/* Mounts. No thread may have been started yet: standard error is put aside meanwhile. */
int session_new(Mount *mount, const MountOptions *options, const char *mountpoint, struct fuse_session **ret,
                Reason *reterr);

/* Ends the connection, and with it whatever waits for it; unmounts where that is still to be done. Always NULL. */
struct fuse_session *session_end(struct fuse_session *session, bool unmount);
