#include "import/chain-reader.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"

#define READ_MAX (4u << 20) /* bytes */

typedef struct ChainReader {
        SourceReader reader;
        ChainSource *source;
} ChainReader;

static bool is_dirty(const ChainSource *source, const ChainExtent *extent) {
        return !source->parent || !extent->point || strcmp(extent->point, source->parent) > 0;
}

/* Adds the part of an extent that lies in [start, end). What is clean is the parent's, whatever its state; but behind the
 * parent's end there is nothing that it could be. */
static int add_extent(const ChainSource *source, const ChainExtent *extent, uint64_t start, uint64_t end,
                      SourceExtents *ret) {
        uint64_t from = max_u64(extent->start, start), to = min_u64(extent->start + extent->length, end);
        bool dirty = is_dirty(source, extent), zero = extent->state == EXTENT_ZERO;
        uint64_t border = dirty ? from : max_u64(from, min_u64(to, source->parent_size));

        if (border > from && source_extents_add(ret, (SourceExtent) { .start = from, .length = border - from }) < 0)
                return -ENOMEM;
        if (border == to)
                return 0;
        return source_extents_add(ret, (SourceExtent) {
                .start = border,
                .length = to - border,
                .dirty = true,
                .zero = zero,
        });
}

static int chain_reader_extents(SourceReader *reader, uint64_t start, uint64_t length, SourceExtents *ret, Reason *reterr) {
        ChainSource *source = ((ChainReader *) reader)->source;
        ChainExtent extent;
        int rc = 0;

        if (!source->chain)
                return source_extents_add(ret, (SourceExtent) { .start = start, .length = length, .dirty = true }) < 0
                               ? fail_oom(reterr)
                               : 0;
        for (uint64_t at = start; at < start + length; at = extent.start + extent.length) {
                if (source->cancel && atomic_load(source->cancel))
                        return fail(reterr, -ECANCELED, "interrupted");
                rc = chain_next_extent(source->chain, at, &extent, reterr);
                if (rc < 0) {
                        atomic_store(&source->failed, true);
                        return rc;
                }
                if (add_extent(source, &extent, at, start + length, ret) < 0)
                        return fail_oom(reterr);
        }
        return 0;
}

static int chain_reader_read(SourceReader *reader, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        ChainSource *source = ((ChainReader *) reader)->source;
        int rc;

        if (source->cancel && atomic_load(source->cancel))
                return fail(reterr, -ECANCELED, "interrupted");
        rc = source->chain ? chain_read(source->chain, buffer, length, offset, reterr)
                           : layer_read_filled(source->layer, buffer, length, offset, reterr);
        if (rc < 0 && rc != -ENOMEM)
                atomic_store(&source->failed, true);
        return rc;
}

static void chain_reader_free(SourceReader *reader) {
        free(reader);
}

static const SourceReaderOps chain_reader_ops = { chain_reader_extents, chain_reader_read, chain_reader_free };

int chain_reader_open(void *context, SourceReader **ret, Reason *reterr) {
        ChainSource *source = context;
        ChainReader *reader = calloc(1, sizeof *reader);

        if (!reader)
                return fail_oom(reterr);
        reader->reader = (SourceReader) {
                .ops = &chain_reader_ops,
                .size = source->chain ? chain_size(source->chain) : layer_disk_size(source->layer),
                .read_max = READ_MAX,
                .multi = true,
        };
        reader->source = source;
        *ret = &reader->reader;
        return 0;
}

int chain_source_total(ChainSource *source, uint64_t *ret, Reason *reterr) {
        uint64_t total = 0, size = source->chain ? chain_size(source->chain) : layer_disk_size(source->layer);
        ChainExtent extent;

        if (!source->chain) {
                *ret = size;
                return 0;
        }
        for (uint64_t at = 0; at < size; at = extent.start + extent.length) {
                int rc;

                if (source->cancel && atomic_load(source->cancel))
                        return fail(reterr, -ECANCELED, "interrupted");
                rc = chain_next_extent(source->chain, at, &extent, reterr);
                if (rc < 0)
                        return rc;
                if (is_dirty(source, &extent) && extent.state != EXTENT_ZERO)
                        total += extent.length;
        }
        *ret = total;
        return 0;
}
