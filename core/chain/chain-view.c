#include "chain/chain-view.h"

#include <errno.h>

#include "util/bytes.h"

ChainView chain_view_whole(Chain *chain) {
        return (ChainView) { chain, 0, chain_size(chain) };
}

int chain_view_next_extent(const ChainView *view, uint64_t offset, ChainExtent *ret, Reason *reterr) {
        ChainExtent extent;
        uint64_t end;
        int rc = chain_next_extent(view->chain, view->start + offset, &extent, reterr);

        if (rc < 0)
                return rc;
        end = min_u64(extent.start + extent.length, view->start + view->size);
        extent.start = max_u64(extent.start, view->start);
        extent.length = end - extent.start;
        extent.start -= view->start;
        *ret = extent;
        return 0;
}

int chain_view_read(const ChainView *view, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        if (offset > view->size || length > view->size - offset)
                return fail(reterr, -EINVAL, "%zu bytes at %llu are past the end", length, (unsigned long long) offset);
        return chain_read(view->chain, buffer, length, view->start + offset, reterr);
}

int64_t chain_view_seek(const ChainView *view, uint64_t offset, int whence) {
        int64_t found;

        if (offset >= view->size)
                return -ENXIO;
        found = chain_seek(view->chain, view->start + offset, whence);
        if (found >= 0 && (uint64_t) found < view->start + view->size)
                return found - (int64_t) view->start;
        /* What follows is not the view's: there is a hole at the end of every file, as lseek(2) has it. */
        return found < 0 && found != -ENXIO ? found : whence == SEEK_HOLE ? (int64_t) view->size : -ENXIO;
}
