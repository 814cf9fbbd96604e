#include "partitions/disk-bytes.h"

static int read_chain(void *context, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        return chain_read(context, buffer, length, offset, reterr);
}

static int chain_has_zeroes(void *context, uint64_t offset, size_t length) {
        return chain_is_zero(context, offset, length);
}

DiskBytes disk_bytes_of_chain(Chain *chain) {
        return (DiskBytes) { chain_size(chain), read_chain, chain_has_zeroes, chain };
}

static int read_view(void *context, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        return chain_view_read(context, buffer, length, offset, reterr);
}

static int view_has_zeroes(void *context, uint64_t offset, size_t length) {
        return chain_view_is_zero(context, offset, length);
}

DiskBytes disk_bytes_of_view(ChainView *view) {
        return (DiskBytes) { chain_view_size(view), read_view, view_has_zeroes, view };
}
