/* core/util/program.h - runs another program to its end and takes what it prints. Without a shell, with nothing on its
 * standard input and none of this process's descriptors. Threads: any. */
#pragma once

#include <stdatomic.h>
#include <stddef.h>

#include "util/reason.h"

/* argv[0] is looked up in PATH; argv ends with NULL. *ret is what it printed, with a NUL behind it; the caller frees it.
 * -EIO, and its own words, where it did not end with 0; -EFBIG: it printed limit bytes or more; -ETIMEDOUT after half a
 * minute in which it printed nothing; -ECANCELED once *cancel (may be NULL) is true. Then it is killed. */
int program_output(const char *const *argv, size_t limit, const atomic_bool *cancel, char **ret, Reason *reterr);

/* The same for a program that may be silent for longer. */
int program_output_within(const char *const *argv, size_t limit, unsigned patience_ms, const atomic_bool *cancel, char **ret,
                          Reason *reterr);
