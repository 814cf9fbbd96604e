#include "partitions/sketch.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

#include "util/bytes.h"

#define PIECE (64u << 10)       /* what is copied at once */
#define SMALL_PIECE (4u << 10)  /* and where not all of that can be read */
#define BEFORE (32u << 10)      /* what libblkid reads at once is mostly shorter */
#define PIECES (SKETCH_LIMIT / PIECE)

struct Sketch {
        DiskBytes disk;
        uint64_t start, size; /* what of the disk it shows */
        int fd;
        uint64_t *pieces; /* the numbers of those that are there, sorted */
        size_t count;
        unsigned char *buffer;
        Reason trouble;
};

int sketch_new(const DiskBytes *disk, uint64_t start, uint64_t size, Sketch **ret, Reason *reterr) {
        CLEANUP(sketch_freep) Sketch *sketch = calloc(1, sizeof *sketch);

        if (!sketch)
                return fail_oom(reterr);
        sketch->disk = *disk;
        sketch->start = start;
        sketch->size = size;
        sketch->fd = memfd_create("disk", MFD_CLOEXEC);
        sketch->pieces = calloc(PIECES, sizeof *sketch->pieces);
        sketch->buffer = malloc(PIECE);
        if (!sketch->pieces || !sketch->buffer)
                return fail_oom(reterr);
        if (sketch->fd < 0 || ftruncate(sketch->fd, (off_t) size) < 0)
                return fail_errno(reterr, -errno, "cannot make a file in memory");
        *ret = STEAL_PTR(sketch);
        return 0;
}

Sketch *sketch_free(Sketch *sketch) {
        close_fd(&sketch->fd);
        free(sketch->pieces);
        free(sketch->buffer);
        free(sketch);
        return NULL;
}

int sketch_fd(const Sketch *sketch) {
        return sketch->fd;
}

uint64_t sketch_size(const Sketch *sketch) {
        return sketch->size;
}

const char *sketch_trouble(const Sketch *sketch) {
        return *sketch->trouble.text ? sketch->trouble.text : NULL;
}

/* Takes note of a piece; false where it is there. */
static bool note(Sketch *sketch, uint64_t number) {
        size_t low = 0, high = sketch->count;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (sketch->pieces[middle] == number)
                        return false;
                if (sketch->pieces[middle] < number)
                        low = middle + 1;
                else
                        high = middle;
        }
        memmove(sketch->pieces + low + 1, sketch->pieces + low, (sketch->count - low) * sizeof *sketch->pieces);
        sketch->pieces[low] = number;
        sketch->count++;
        return true;
}

static int write_at(Sketch *sketch, const void *bytes, size_t length, uint64_t offset) {
        /* Memory is the only thing that can be short. */
        return pwrite(sketch->fd, bytes, length, (off_t) offset) == (ssize_t) length ? 0 : -ENOMEM;
}

static int read_disk(Sketch *sketch, size_t length, uint64_t offset, Reason *reterr) {
        return sketch->disk.read(sketch->disk.context, sketch->buffer, length, sketch->start + offset, reterr);
}

/* What cannot be read stays a hole. */
static int copy_readable(Sketch *sketch, uint64_t start, size_t length) {
        int rc = 0;

        for (size_t at = 0; rc >= 0 && at < length; at += SMALL_PIECE) {
                size_t part = (size_t) min_u64(SMALL_PIECE, length - at);

                if (read_disk(sketch, part, start + at, NULL) >= 0)
                        rc = write_at(sketch, sketch->buffer, part, start + at);
        }
        return rc;
}

static int copy_piece(Sketch *sketch, uint64_t start) {
        size_t length = (size_t) min_u64(PIECE, sketch->size - start);
        Reason reason = REASON_INIT;

        if (sketch->disk.is_zero(sketch->disk.context, sketch->start + start, length) == 1)
                return 0;
        if (read_disk(sketch, length, start, &reason) >= 0)
                return write_at(sketch, sketch->buffer, length, start);
        if (!sketch_trouble(sketch))
                sketch->trouble = reason;
        return copy_readable(sketch, start, length);
}

int sketch_add(Sketch *sketch, uint64_t start, uint64_t length) {
        uint64_t size = sketch->size, end;
        int added = 0, rc;

        if (start >= size || length == 0)
                return 0;
        end = start + min_u64(length, size - start);
        for (uint64_t at = round_down(start, PIECE); at < end; at += PIECE) {
                if (sketch->count == PIECES) {
                        if (!sketch_trouble(sketch))
                                fail(&sketch->trouble, 0, "more than %u MiB would have to be looked at", SKETCH_LIMIT >> 20);
                        return added;
                }
                if (!note(sketch, at / PIECE))
                        continue;
                rc = copy_piece(sketch, at);
                if (rc < 0)
                        return rc;
                added = 1;
        }
        return added;
}

int sketch_follow(Sketch *sketch) {
        off_t position = lseek(sketch->fd, 0, SEEK_CUR);
        uint64_t end = position > 0 ? (uint64_t) position : 0;
        uint64_t start = end > BEFORE ? end - BEFORE : 0;

        return sketch_add(sketch, start, end - start);
}
