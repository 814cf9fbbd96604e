/* fs/mount/trigger.h - VM/capture, which behaves like a file in sysfs.
 *
 * Reading from its beginning takes a snapshot of the state, which further reads go on in. Writing a word starts a capture.
 * poll(2) tells whether the state has changed since this descriptor read it; a descriptor that has read nothing is told so
 * at once. While somebody waits for that, one thread compares the states four times a second: changes come from other
 * processes and hosts, and a capture that was killed does not say so.
 * Threads: any. Lock order: the triggers' lock, then a file's; neither is held over I/O. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "mount/catalogue.h"

struct fuse_pollhandle;

typedef struct Triggers Triggers;        /* what all of a mount share */
typedef struct TriggerFile TriggerFile; /* one open descriptor */

/* stop_fd: readable when the mount ends; borrowed. */
int triggers_new(Repository *repository, int stop_fd, Triggers **ret);
Triggers *triggers_free(Triggers *triggers); /* always NULL; no file is used any more */
DEFINE_CLEANUP(Triggers, triggers_free)

int trigger_open(SharedVm *vm, TriggerFile **ret);
TriggerFile *trigger_close(TriggerFile *file); /* always NULL */

/* A copy of what of the text lies in the range goes to buffer; its length is returned, or a negative errno. */
int64_t trigger_read(TriggerFile *file, void *buffer, size_t size, uint64_t offset);

/* The length once the capture is accepted. -EINVAL: unknown word; -EROFS, -EBUSY, -EIO. */
int64_t trigger_write(Triggers *triggers, TriggerFile *file, const char *bytes, size_t length);

/* Takes handle over; NULL: nobody waits. */
int trigger_poll(Triggers *triggers, TriggerFile *file, struct fuse_pollhandle *handle, unsigned *ret_events);
