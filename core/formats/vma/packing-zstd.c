/* core/formats/vma/packing-zstd.c - zstd, with any number of frames. */
#include <errno.h>
#include <zstd.h>

#include "formats/vma/unpacker.h"

#define WINDOW_LOG_MAX 31 /* --long=31; the memory is taken as it is used */

static int zstd_start(void **ret_state, Reason *reterr) {
        ZSTD_DStream *stream = ZSTD_createDStream();

        if (!stream)
                return fail_oom(reterr);
        (void) ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, WINDOW_LOG_MAX);
        *ret_state = stream;
        return 0;
}

static int zstd_unpack(void *state, const void *from, size_t *from_length, void *to, size_t *to_length, Reason *reterr) {
        ZSTD_inBuffer in = { from, *from_length, 0 };
        ZSTD_outBuffer out = { to, *to_length, 0 };
        size_t rc = ZSTD_decompressStream(state, &out, &in);

        if (ZSTD_isError(rc))
                return fail(reterr, -EBADMSG, "zstd cannot unpack it: %s", ZSTD_getErrorName(rc));
        *from_length = in.pos;
        *to_length = out.pos;
        return rc == 0;
}

static void zstd_free(void *state) {
        ZSTD_freeDStream(state);
}

const Packing packing_zstd = {
        .name = "zstd",
        .ending = ".zst",
        .magic = { 0x28, 0xb5, 0x2f, 0xfd },
        .magic_length = 4,
        .start = zstd_start,
        .unpack = zstd_unpack,
        .free = zstd_free,
};
