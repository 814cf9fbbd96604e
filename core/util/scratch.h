/* core/util/scratch.h - a buffer that a thread keeps, because a fresh large one costs more than what is done in it. */
#pragma once

#include <stddef.h>

/* At least length bytes, page-aligned; what was in it is lost with the next call in the same thread. NULL: no memory. */
void *scratch_get(size_t length);
