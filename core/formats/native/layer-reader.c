#include "formats/native/layer-reader.h"

#include <errno.h>
#include <inttypes.h>

#include "formats/native/layer-private.h"
#include "util/bytes.h"

/* A range of blocks, clipped to the bytes that are asked for. */
static int add_extent(const NativeLayer *native, uint64_t first, uint64_t end, uint64_t start, uint64_t stop,
                      ExtentState state, ExtentMap *map) {
        uint64_t size = native->bounds.block_size;
        uint64_t from = max_u64(first * size, start);
        uint64_t to = min_u64(min_u64(end * size, native->bounds.disk_size), stop);

        return from < to ? extent_map_add(map, from, to - from, state) : 0;
}

static int native_extents(Layer *layer, uint64_t start, uint64_t length, ExtentMap *map, Reason *reterr) {
        const NativeLayer *native = (const NativeLayer *) layer;
        uint64_t size = native->bounds.block_size, stop = start + length;
        uint64_t block = start / size, end = divide_up(stop, size);
        int damaged = 0;

        while (block < end) {
                CLEANUP(cache_releasep) CacheEntry *cached = NULL;
                PageEntry entry;
                const Page *leaf;
                int rc = native_find_leaf(native, block, end, &cached, &entry, reterr);

                if (rc == -ENOMEM)
                        return rc;
                if (rc < 0) {
                        damaged = 1;
                        if (add_extent(native, max_u64(entry.first, block), entry.end, start, stop, EXTENT_UNREADABLE, map) <
                            0)
                                return fail_oom(reterr);
                        block = entry.end;
                        continue;
                }
                if (!cached)
                        break;
                leaf = cache_value(cached);
                for (uint32_t i = page_find(leaf, block); i < leaf->count && leaf->records[i].block < end; i++) {
                        const PageRecord *record = &leaf->records[i];

                        if (add_extent(native, record->block, record->block + record->count, start, stop, record->state,
                                       map) < 0)
                                return fail_oom(reterr);
                }
                block = entry.end;
        }
        return damaged;
}

static int fail_without_data(const NativeLayer *native, const Page *leaf, uint64_t at, Reason *reterr) {
        uint64_t block = at / native->bounds.block_size;
        uint32_t i = leaf ? page_find(leaf, block) : 0;

        if (leaf && i < leaf->count && leaf->records[i].block <= block && leaf->records[i].state == EXTENT_UNREADABLE)
                return fail(reterr, -EIO,
                            "%s: block %" PRIu64 " (at %" PRIu64 " of the disk) could not be read when it was captured",
                            byte_store_name(native->store), block, at);
        return fail(reterr, -EIO, "%s has no data at %" PRIu64 " of the disk", byte_store_name(native->store), at);
}

static int native_read(Layer *layer, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        const NativeLayer *native = (const NativeLayer *) layer;
        uint64_t size = native->bounds.block_size, at = offset, end = offset + length;

        while (at < end) {
                CLEANUP(cache_releasep) CacheEntry *cached = NULL;
                PageEntry entry;
                const Page *leaf;
                int rc = native_find_leaf(native, at / size, divide_up(end, size), &cached, &entry, reterr);

                if (rc < 0)
                        return rc;
                leaf = cached ? cache_value(cached) : NULL;
                for (uint32_t i = leaf ? page_find(leaf, at / size) : 0; leaf && i < leaf->count && at < end; i++) {
                        const PageRecord *record = &leaf->records[i];
                        uint64_t part_end = min_u64(end, (record->block + record->count) * size);

                        if (record->block * size > at || record->state != EXTENT_DATA)
                                break;
                        rc = native_read_record(native, leaf, record, at, part_end, (unsigned char *) buffer + (at - offset),
                                         reterr);
                        if (rc < 0)
                                return rc;
                        at = part_end;
                }
                if (at < end && (!leaf || at < min_u64(entry.end * size, end)))
                        return fail_without_data(native, leaf, at, reterr);
        }
        return 0;
}

/* What the first leaf tells of it: who expects more than that goes on to read it first. */
static void native_expect(Layer *layer, uint64_t start, uint64_t length) {
        const NativeLayer *native = (const NativeLayer *) layer;
        uint64_t size = native->bounds.block_size, block = start / size, end = divide_up(start + length, size);
        CLEANUP(cache_releasep) CacheEntry *cached = NULL;
        PageEntry entry;
        const Page *leaf;

        if (native_find_leaf(native, block, end, &cached, &entry, NULL) < 0 || !cached)
                return;
        leaf = cache_value(cached);
        for (uint32_t i = page_find(leaf, block); i < leaf->count && leaf->records[i].block < end; i++) {
                const PageRecord *record = &leaf->records[i];
                uint64_t from = max_u64(block, record->block), to = min_u64(end, record->block + record->count);
                const StoredBlock *first, *last;

                if (record->state != EXTENT_DATA || from >= to)
                        continue;
                first = &leaf->blocks[record->stored + (from - record->block)];
                last = &leaf->blocks[record->stored + (to - 1 - record->block)];
                byte_store_expect(native->store, leaf->blocks_start + first->offset,
                                  last->offset + last->length - first->offset);
        }
}

static void native_free(Layer *layer) {
        NativeLayer *native = (NativeLayer *) layer;

        cache_forget(native->memory, native->owner);
        byte_store_free(native->store);
        free(native);
}

const LayerOps native_layer_ops = {
        .extents = native_extents,
        .read = native_read,
        .expect = native_expect,
        .free = native_free,
};
