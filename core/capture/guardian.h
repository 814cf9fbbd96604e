/* core/capture/guardian.h - the process that ends a killed capture's job, so that the guest can go on.
 *
 * A capture starts it (posix_spawn of guardian_argv, with the numbers of two inherited descriptors appended: a pipe
 * and the VM's lock) and tells it over the pipe when a job may be there and which point is about to become visible.
 * When the pipe ends without a goodbye, the capture is dead: the guardian ends the job, removes what was being
 * written, deletes the checkpoint that no point needs, writes the state, and goes, releasing the lock last. A
 * capture whose guardian dies starts another. */
#pragma once

#include "repository/vm.h"

typedef struct Guardian Guardian;

int guardian_start(const char *const *argv, int lock_fd, Guardian **ret, Reason *reterr);
/* Starts another where it has died; cheap otherwise. */
int guardian_check(Guardian *guardian, Reason *reterr);
/* Tells it that the point of this name is about to be committed: if it is there afterwards, the capture succeeded. */
int guardian_expect(Guardian *guardian, const char *point, Reason *reterr);
/* All is done: it goes without doing anything. Always NULL. */
Guardian *guardian_dismiss(Guardian *guardian);

/* What runs in the guardian process. Returns its exit status. */
int guardian_main(Vm *vm, int pipe_fd, int lock_fd);
