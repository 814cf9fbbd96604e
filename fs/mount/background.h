/* fs/mount/background.h - going to the background once there is something to find there.
 *
 * The process forks before it has threads; the one that was called waits until the other is ready, and ends with its
 * status. Until then the child keeps stderr, so that its one line of error is seen. Other inherited descriptors are closed
 * at the start. */
#pragma once

/* 0: this is the child, *ret_fd is what background_ready() wants. 1: this is the parent, and *ret_status what it has to
 * return now. Else a negative errno. */
int background_start(int *ret_fd, int *ret_status);

/* All is well: leaves the terminal, the directory and the standard streams, sends log lines to syslog, and lets the
 * parent go. */
void background_ready(int fd);
