/* fs/mount/launcher.h - starts a capture in a process of its own: whatever happens to it or to the mount does not
 * touch the other. */
#pragma once

/* Starts `virtbackupfs capture REPOSITORY VM` and waits until it has been accepted or refused. option: "--full",
 * "--incremental" or NULL. repository is absolute. stop_fd: readable when the mount ends, which ends the waiting.
 * 0: accepted, it goes on by itself. -EBUSY, -EROFS: as the capture says; -EIO: it could not be started.
 * The process has no descriptor of ours but its end of a pipe, a session of its own, and nothing on its standard streams. */
int launcher_start(const char *repository, const char *vm, const char *option, int stop_fd);
