/* fs/mount/reader.h - answers reads of disks.
 *
 * Holes are answered from one area of zeroes that nobody writes to, what was made ready from where it lies; other data is
 * decompressed straight into the thread's scratch buffer. Threads: any. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "mount/open-file.h"

typedef struct Answer {
        const void *bytes;
        size_t length;
        uint64_t end;         /* on the disk */
        PrefetchRange *range; /* that holds the bytes, or NULL */
} Answer;

/* The bytes of [offset, offset + size), clipped to the file; they are good until reader_release(), in the same thread.
 * Where some of it cannot be read: what lies before that for a file that is read directly, and an error where that is
 * nothing; always an error through the page cache, for which a short answer is the end of the file. */
int reader_read(OpenFile *file, size_t size, uint64_t offset, Answer *ret);
void reader_release(Answer *answer);
