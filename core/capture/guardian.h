/* core/capture/guardian.h - the process that ends a killed capture's job, so that the guest can go on.
 *
 * A capture starts it (posix_spawn of guardian_argv, with the numbers of two inherited descriptors appended: the end
 * of a socket pair, and the VM's lock), in a session of its own and deaf to what ends a capture politely. When its
 * socket ends without a goodbye, the capture is dead: the guardian ends the job, removes what was being written, deletes
 * the checkpoint that no point needs, writes the state, and goes, releasing the lock last. A capture whose guardian
 * dies starts another.
 * Threads: check, expect and the others may come from different threads, but for dismissal. */
#pragma once

#include "repository/vm.h"

typedef struct Guardian Guardian;

/* source: where it is not the VM's own, or NULL. scratch_directory: as the capture has it, or NULL. argv and both are
 * borrowed while the guardian lives. */
int guardian_start(const char *const *argv, const char *source, const char *scratch_directory, int lock_fd, Guardian **ret,
                   Reason *reterr);
/* Starts another where it has died; cheap otherwise. */
int guardian_check(Guardian *guardian, Reason *reterr);
/* Tells it that this capture is about to commit the point of this name: if it is there afterwards, it succeeded. */
int guardian_expect(Guardian *guardian, const char *point, const char *capture, Reason *reterr);
/* The user wants the capture to end: where it does not manage to, that is what the state says of it. */
void guardian_tell_interrupted(Guardian *guardian);
/* All is done: it goes without doing anything. Always NULL. */
Guardian *guardian_dismiss(Guardian *guardian);
/* The job could not be ended: it goes on trying when we are gone, and has the lock until then. Always NULL. */
Guardian *guardian_hand_over(Guardian *guardian);

/* What runs in the guardian process. Returns its exit status. */
int guardian_main(Vm *vm, int socket_fd, int lock_fd);
