/* fs/mount/prefetch.h - makes ready what a reader who goes from front to back will ask for next.
 *
 * Past the page cache nothing is read ahead by the kernel: the reader would wait while the mount decompresses, and the mount
 * while the reader does something with what it got. When reads of a descriptor follow each other without gaps, the next
 * ranges are decompressed by other threads meanwhile.
 * Memory: PREFETCH_BUFFERS of PREFETCH_SIZE in a mount, however many read.
 * Threads: a Prefetch belongs to a descriptor and may be used by any thread at once. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "chain/chain-view.h"
#include "util/cleanup.h"

#define PREFETCH_SIZE (1u << 20) /* bytes: the longest request of the kernel */
#define PREFETCH_BUFFERS 16

typedef struct Prefetcher Prefetcher;       /* of a mount: threads and buffers */
typedef struct Prefetch Prefetch;           /* of a descriptor */
typedef struct PrefetchRange PrefetchRange; /* a range that is ready */

/* Threads are started when they are first needed. */
int prefetcher_new(Prefetcher **ret);
/* No Prefetch may be left. Always NULL. */
Prefetcher *prefetcher_free(Prefetcher *prefetcher);

/* The view is borrowed. */
int prefetch_new(Prefetcher *prefetcher, const ChainView *view, Prefetch **ret);
/* Waits for what is being made ready, and for answers that go on: a file may be closed by another thread as soon as the
 * kernel has the answer. Always NULL. */
Prefetch *prefetch_free(Prefetch *prefetch);

/* A read of [offset, offset + length), which lies within the view: tells what may be wanted next, and returns the range that
 * holds all of it where that is ready, or soon will be: its bytes from offset on are *ret_bytes until
 * prefetch_release(). NULL: the caller has to read by itself. */
PrefetchRange *prefetch_read(Prefetch *prefetch, uint64_t offset, size_t length, const void **ret_bytes);
void prefetch_release(PrefetchRange *range, uint64_t end); /* end: of what was read */
