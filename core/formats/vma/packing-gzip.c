/* core/formats/vma/packing-gzip.c - gzip, with any number of members. Zeroes behind the last one are no harm. */
#include <errno.h>
#include <stdbool.h>
#include <zlib.h>

#include "formats/vma/unpacker.h"
#include "util/bytes.h"

#define GZIP_WINDOW (15 + 16)

typedef struct Gzip {
        z_stream stream;
        bool ended;   /* a member has */
        bool padding; /* there are zeroes behind it */
} Gzip;

static int gzip_start(void **ret_state, Reason *reterr) {
        Gzip *gzip = calloc(1, sizeof *gzip);

        if (!gzip || inflateInit2(&gzip->stream, GZIP_WINDOW) != Z_OK) {
                free(gzip);
                return fail_oom(reterr);
        }
        *ret_state = gzip;
        return 0;
}

/* Behind a member: another one, or zeroes up to the end. 1 where it is those. */
static int begin_next(Gzip *gzip, const void *from, size_t length, Reason *reterr) {
        const unsigned char *bytes = from;

        if (gzip->padding || *bytes == 0) {
                gzip->padding = true;
                if (!bytes_are_zero(from, length))
                        return fail(reterr, -EBADMSG, "behind its end is something that is not gzip's");
                return 1;
        }
        gzip->ended = false;
        return inflateReset(&gzip->stream) == Z_OK ? 0 : fail_oom(reterr);
}

static int gzip_unpack(void *state, const void *from, size_t *from_length, void *to, size_t *to_length, Reason *reterr) {
        Gzip *gzip = state;
        int rc;

        if (gzip->ended && *from_length > 0) {
                rc = begin_next(gzip, from, *from_length, reterr);
                if (rc != 0) {
                        *to_length = 0;
                        return rc;
                }
        }
        gzip->stream.next_in = (unsigned char *) from;
        gzip->stream.avail_in = (uInt) min_u64(*from_length, UINT32_MAX);
        gzip->stream.next_out = to;
        gzip->stream.avail_out = (uInt) min_u64(*to_length, UINT32_MAX);
        rc = inflate(&gzip->stream, Z_NO_FLUSH);
        if (rc == Z_MEM_ERROR)
                return fail_oom(reterr);
        if (rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR)
                return fail(reterr, -EBADMSG, "gzip cannot unpack it: %s", gzip->stream.msg ?: "it is damaged");
        *from_length = (size_t) (gzip->stream.next_in - (const unsigned char *) from);
        *to_length = (size_t) (gzip->stream.next_out - (unsigned char *) to);
        gzip->ended = rc == Z_STREAM_END;
        return gzip->ended;
}

static void gzip_free(void *state) {
        Gzip *gzip = state;

        inflateEnd(&gzip->stream);
        free(gzip);
}

const Packing packing_gzip = {
        .name = "gzip",
        .ending = ".gz",
        .magic = { 0x1f, 0x8b, 0x08 },
        .magic_length = 3,
        .start = gzip_start,
        .unpack = gzip_unpack,
        .free = gzip_free,
};
