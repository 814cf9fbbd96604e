/* fs/mount/direct-mapping.h - lets files that are read past the page cache be mapped into memory all the same.
 *
 * The kernel allows shared mappings of files opened with FOPEN_DIRECT_IO from Linux 6.6 on (FUSE protocol 7.39), where a
 * filesystem asks for it in its answer to FUSE_INIT. libfuse 3.14 does not know of that: the flag is put into its answer on
 * the way.
 * Threads: the first before the session's loop; the other from any. One session in a process. */
#pragma once

#include <stdbool.h>

struct fuse_session;

/* After fuse_session_mount(). */
int direct_mapping_request(struct fuse_session *session);

/* Whether the kernel allows it: known once the session has been initialised. */
bool direct_mapping_granted(void);
