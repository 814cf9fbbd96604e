#include "sources/nbd-reader.h"

#include <errno.h>
#include <string.h>

#include "libraries/libnbd-functions.h"
#include "sources/nbd-contexts.h"
#include "util/bytes.h"

#define NEAR_BEST (256u << 10)         /* what a server on this host has read is still in the caches when it sends it */
#define DEPTH_CONTEXT "qemu:allocation-depth"
#define STATUS_MAX (UINT64_C(2) << 30) /* range of one block status request; the protocol ends below 4 GiB */

typedef struct NbdReader {
        SourceReader reader;
        NbdConnection connection;
        char *bitmap;
        void *bounce;              /* for reads that the server wants wider; NULL until needed */
        bool ignore_zero;
        unsigned top_depth;
        NbdContext allocation, dirty, depth;
        uint64_t asked;            /* by the block status request in flight */
} NbdReader;

static void reader_free(SourceReader *base) {
        NbdReader *reader = (NbdReader *) base;

        nbd_connection_clear(&reader->connection);
        nbd_context_clear(&reader->allocation);
        nbd_context_clear(&reader->dirty);
        nbd_context_clear(&reader->depth);
        free(reader->bitmap);
        free(reader->bounce);
        free(reader);
}

static void reader_freep(NbdReader **reader) {
        if (*reader)
                reader_free(&(*reader)->reader);
}

/* Passes on how a request ended, and whether the connection is still there. */
static int note_lost(NbdReader *reader, int rc) {
        reader->reader.lost = !reader->connection.nbd;
        return rc;
}

static int take_extents(void *data, const char *context, uint64_t offset, uint32_t *entries, size_t words, int *error) {
        NbdReader *reader = data;
        NbdContext *into = NULL;
        int rc;

        if (strcmp(context, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0)
                into = &reader->allocation;
        else if (reader->bitmap && strcmp(context, reader->bitmap) == 0)
                into = &reader->dirty;
        else if (strcmp(context, DEPTH_CONTEXT) == 0)
                into = &reader->depth;
        else
                return 0;
        rc = nbd_context_take(into, entries, words, reader->asked);
        if (rc < 0)
                *error = -rc;
        return rc < 0 ? -1 : 0;
}

/* One block status request for [start, start + length), whose answer lands in the reader's contexts. */
static int ask_status(NbdReader *reader, uint64_t start, uint64_t length, Reason *reterr) {
        int64_t cookie;

        reader->allocation.count = reader->dirty.count = reader->depth.count = 0;
        reader->allocation.covered = reader->dirty.covered = reader->depth.covered = 0;
        reader->asked = length;
        cookie = nbd_aio_block_status(reader->connection.nbd, length, start,
                                      (nbd_extent_callback) { .callback = take_extents, .user_data = reader },
                                      NBD_NULL_COMPLETION, 0);
        return note_lost(reader, nbd_connection_finish(&reader->connection, cookie, "cannot get extents", reterr));
}

/* Cuts what alignment to the server's minimum block added at both ends. */
static void cut_to(SourceExtents *extents, uint64_t start, uint64_t end) {
        size_t kept = 0;

        for (size_t i = 0; i < extents->count; i++) {
                SourceExtent e = extents->items[i];
                uint64_t from = max_u64(e.start, start), to = min_u64(e.start + e.length, end);

                if (from >= to)
                        continue;
                e.start = from;
                e.length = to - from;
                extents->items[kept++] = e;
        }
        extents->count = kept;
}

static int reader_extents(SourceReader *base, uint64_t start, uint64_t length, SourceExtents *ret, Reason *reterr) {
        CLEANUP(source_extents_clear) SourceExtents extents = { 0 };
        NbdReader *reader = (NbdReader *) base;
        uint64_t at = round_down(start, reader->connection.minimum);
        uint64_t end = min_u64(round_up(start + length, reader->connection.minimum), base->size);
        const NbdContexts contexts = {
                .allocation = reader->ignore_zero ? NULL : &reader->allocation,
                .dirty = reader->bitmap ? &reader->dirty : NULL,
                .depth = reader->top_depth ? &reader->depth : NULL,
                .top_depth = reader->top_depth,
        };
        bool asks = contexts.allocation || contexts.dirty || contexts.depth;
        int rc = 0;

        if (!reader->connection.nbd)
                return nbd_connection_lost(reterr);
        while (at < end) {
                uint64_t asked = min_u64(end - at, STATUS_MAX), covered;

                if (asks)
                        rc = ask_status(reader, at, asked, reterr);
                if (rc < 0)
                        return rc;
                rc = nbd_contexts_intersect(&contexts, at, asked, &extents, &covered);
                if (rc < 0)
                        return fail_oom(reterr);
                if (covered == 0)
                        return fail(reterr, -EPROTO, "the NBD server answers a request for extents with none");
                at += covered;
        }
        cut_to(&extents, start, start + length);
        *ret = extents;
        extents = (SourceExtents) { 0 };
        return 0;
}

static int reader_read(SourceReader *base, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        NbdReader *reader = (NbdReader *) base;
        NbdConnection *connection = &reader->connection;
        uint8_t *to = buffer;
        int rc;

        while (length > 0) {
                uint64_t start = round_down(offset, connection->minimum);
                uint64_t got = offset + length == base->size ? length : round_down(length, connection->minimum);

                if (start == offset && got > 0) {
                        rc = note_lost(reader, nbd_connection_read(connection, to, got, offset, reterr));
                } else { /* a part of a block, of which the server gives all or nothing */
                        uint64_t whole = min_u64(connection->minimum, base->size - start);

                        if (!reader->bounce)
                                reader->bounce = malloc(connection->minimum);
                        if (!reader->bounce)
                                return fail_oom(reterr);
                        rc = note_lost(reader, nbd_connection_read(connection, reader->bounce, whole, start, reterr));
                        got = min_u64(start + whole - offset, length);
                        if (rc == 0)
                                memcpy(to, (uint8_t *) reader->bounce + (offset - start), got);
                }
                if (rc < 0)
                        return rc;
                to += got;
                offset += got;
                length -= got;
        }
        return 0;
}

static const SourceReaderOps nbd_reader_ops = {
        .extents = reader_extents,
        .read = reader_read,
        .free = reader_free,
};

static int ask_for_contexts(const NbdReader *reader, Reason *reterr) {
        struct nbd_handle *nbd = reader->connection.nbd;

        if ((!reader->ignore_zero && nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) < 0) ||
            (reader->bitmap && nbd_add_meta_context(nbd, reader->bitmap) < 0) ||
            (reader->top_depth && nbd_add_meta_context(nbd, DEPTH_CONTEXT) < 0))
                return fail(reterr, nbd_code(-EINVAL), "cannot set up the NBD connection: %s", nbd_words());
        return 0;
}

/* Which of them there are. */
static int learn_contexts(NbdReader *reader, const NbdAddress *address, Reason *reterr) {
        struct nbd_handle *nbd = reader->connection.nbd;

        if (nbd_can_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) <= 0)
                reader->ignore_zero = true;
        if (reader->bitmap && nbd_can_meta_context(nbd, reader->bitmap) <= 0)
                return fail(reterr, -ENODATA, "the NBD server has no bitmap %s for export %s", reader->bitmap,
                            address->export_name);
        if (reader->top_depth && nbd_can_meta_context(nbd, DEPTH_CONTEXT) <= 0)
                return fail(reterr, -ENOTSUP, "the NBD server does not tell what of export %s lies in backing files "
                                              "(" DEPTH_CONTEXT ")", address->export_name);
        return 0;
}

int nbd_reader_open(const NbdAddress *address, const atomic_bool *cancel, SourceReader **ret, Reason *reterr) {
        CLEANUP(reader_freep) NbdReader *reader = calloc(1, sizeof *reader);
        int rc;

        if (!reader)
                return fail_oom(reterr);
        reader->reader.ops = &nbd_reader_ops;
        reader->ignore_zero = address->ignore_zero;
        reader->top_depth = address->top_depth;
        if (address->bitmap) {
                reader->bitmap = strdup(address->bitmap);
                if (!reader->bitmap)
                        return fail_oom(reterr);
        }
        rc = nbd_connection_prepare(address, cancel, &reader->connection, reterr);
        if (rc == 0)
                rc = ask_for_contexts(reader, reterr);
        if (rc == 0)
                rc = nbd_connection_connect(&reader->connection, address, reterr);
        if (rc == 0)
                rc = learn_contexts(reader, address, reterr);
        if (rc < 0)
                return rc;
        reader->reader.size = reader->connection.size;
        reader->reader.read_max = NBD_TRANSFER_MAX;
        reader->reader.read_best = address->socket_path ? NEAR_BEST : 0;
        reader->reader.multi = reader->connection.multi;
        *ret = &STEAL_PTR(reader)->reader;
        return 0;
}
