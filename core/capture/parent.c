#include "capture/parent.h"

#include <errno.h>
#include <string.h>

#include "util/bytes.h"
#include "util/cleanup.h"

#define COMPARE_SIZE (64u << 10) /* bytes at once */

int parent_extents_load(Chain *parent, uint64_t start, uint64_t end, ParentExtents *ret) {
        end = min_u64(end, chain_size(parent));
        ret->count = 0;
        while (start < end) {
                ChainExtent extent;
                ParentState state;
                uint64_t extent_end;
                int rc;

                rc = chain_extent_at(parent, start, &extent, NULL);
                if (rc < 0 && rc != -EIO)
                        return rc;
                state = extent.state == EXTENT_DATA ? PARENT_DATA : extent.state == EXTENT_ZERO ? PARENT_ZERO : PARENT_LOST;
                extent_end = min_u64(extent.start + extent.length, end);
                rc = parent_extents_add(ret, start, extent_end - start, state);
                if (rc < 0)
                        return rc;
                start = extent_end;
        }
        return 0;
}

bool parent_is_zero(void *context, uint64_t start, uint64_t length) {
        unsigned char bytes[COMPARE_SIZE];

        for (uint64_t end = start + length, part; start < end; start += part) {
                part = min_u64(end - start, sizeof bytes);
                if (chain_read(context, bytes, part, start, NULL) < 0 || !bytes_are_zero(bytes, part))
                        return false;
        }
        return true;
}

bool parent_has(Chain *parent, uint64_t start, const void *bytes, uint64_t length, void *scratch) {
        if (start + length > chain_size(parent))
                return false;
        if (chain_is_zero(parent, start, length) == 1)
                return bytes_are_zero(bytes, length);
        return chain_read(parent, scratch, length, start, NULL) == 0 && memcmp(bytes, scratch, length) == 0;
}

int parent_count_data(Chain *parent, uint64_t start, uint64_t length, uint64_t *ret) {
        CLEANUP(parent_extents_clear) ParentExtents extents = { 0 };
        int rc = parent_extents_load(parent, start, start + length, &extents);

        if (rc < 0)
                return rc;
        *ret = 0;
        for (size_t i = 0; i < extents.count; i++)
                *ret += extents.items[i].state == PARENT_DATA ? extents.items[i].length : 0;
        return 0;
}
