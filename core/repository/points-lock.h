/* core/repository/points-lock.h - the points of a VM stay while somebody needs them.
 *
 * An open-file-description lock on vms/NAME/readers, shared by all who need points for long (a recovery, a restore, an
 * export, an import from them) and exclusive for who deletes them. Captures are not concerned: they only add. Whoever reads
 * a mount is not either, but for a mount that says what it is held for.
 * It ends with the process, at the latest. */
#pragma once

#include "repository/vm.h"

/* *ret_fd: the descriptor that holds the lock, or -1 where there is none to be had: the points are another tool's, or the
 * repository cannot be written to. -EBUSY: they are being deleted. */
int points_lock_share(Vm *vm, int *ret_fd, Reason *reterr);

/* To delete them. -EBUSY: somebody needs them. */
int points_lock_take(Vm *vm, int *ret_fd, Reason *reterr);
