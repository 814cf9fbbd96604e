/* core/chain/reach.h - which points show what one of them holds.
 *
 * Threads: any. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "repository/vm.h"
#include "util/reason.h"
#include "util/strings.h"

/* The points at which the byte at offset of the disk is the one in that point's layers, this one first, in the order of
 * their names. All later points are looked at, for at most so long: *ret_more says that there may be others. A point that
 * cannot be looked into shows nothing. The caller frees *ret with strings_free(). -ENOMEM. */
int reach_find(Vm *vm, const char *point, const char *disk, uint64_t offset, unsigned patience_ms, Strings *ret,
               bool *ret_more, Reason *reterr);
