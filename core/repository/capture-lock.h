/* core/repository/capture-lock.h - one capture per VM at a time, over processes and hosts.
 *
 * An open-file-description lock (fcntl F_OFD_SETLK) on vms/NAME/lock: it works on network file systems that lock,
 * goes with the descriptor over fork and exec, and ends when the last process that has it ends. */
#pragma once

#include <stdbool.h>

#include "repository/vm.h"

/* The descriptor that holds the lock: closing it (and all copies) releases it. -EBUSY; -EROFS where the
 * repository cannot be written to. */
int capture_lock_take(Vm *vm, int *ret_fd, Reason *reterr);

/* 1 where somebody holds it, 0 where not, else a negative errno. Takes nothing. */
int capture_lock_is_held(Vm *vm);
