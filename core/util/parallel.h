/* core/util/parallel.h - does many small things at once, where most of their time is waiting for a disk. */
#pragma once

#include <stddef.h>

/* Calls work(context, 0 … count - 1), each once, from up to `threads` threads, the caller's among them. Returns when all is
 * done. The caller begins alone, and others are started once that has taken longer than they cost: what is in memory is
 * over by then. Where no thread can be had the caller does all of it. */
void parallel_for(size_t count, size_t threads, void (*work)(void *context, size_t index), void *context);
