#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <string.h>

#include "codec/checksum.h"
#include "formats/native/layer-private.h"
#include "util/bytes.h"
#include "util/scratch.h"

#define READ_AT_ONCE (1u << 20)         /* stored bytes that are fetched together, a block where that is more */
#define BLOCK_ITEMS (UINT64_C(1) << 63) /* cache items of blocks have this bit; those of pages are offsets in the file */

/* A run of neighbouring stored blocks of one leaf, and what of them is wanted. */
typedef struct Run {
        const Page *leaf;
        uint64_t block; /* the first */
        uint32_t stored, count;
} Run;

static uint32_t raw_length(const NativeLayer *native, uint64_t block) {
        uint64_t start = block * native->bounds.block_size;

        return (uint32_t) min_u64(native->bounds.block_size, native->bounds.disk_size - start);
}

static int damaged_block(const NativeLayer *native, uint64_t block, int rc, const char *what, Reason *reterr) {
        return fail(reterr, rc == -ENOMEM ? rc : -EIO, "%s is damaged: block %" PRIu64 " (at %" PRIu64 " of the disk): %s",
                    byte_store_name(native->store), block, block * native->bounds.block_size, what);
}

static int check_block(const NativeLayer *native, uint64_t block, const StoredBlock *stored, const void *bytes,
                       Reason *reterr) {
        if (checksum(bytes, stored->length) != stored->checksum)
                return damaged_block(native, block, -EIO, "its checksum does not fit", reterr);
        return 0;
}

static int unpack_block(const NativeLayer *native, uint64_t block, const StoredBlock *stored, const void *bytes, void *to,
                        Reason *reterr) {
        uint32_t length = raw_length(native, block);
        int rc = check_block(native, block, stored, bytes, reterr);

        if (rc < 0)
                return rc;
        if (stored->length == length) {
                if (bytes != to)
                        memcpy(to, bytes, length);
                return 0;
        }
        rc = native->codec->decompress(bytes, stored->length, to, length);
        return rc < 0 ? damaged_block(native, block, rc, "it cannot be decompressed", reterr) : 0;
}

/* Whole blocks, straight into the caller's buffer. */
static int read_whole_blocks(const NativeLayer *native, Run run, unsigned char *to, Reason *reterr) {
        while (run.count > 0) {
                const StoredBlock *blocks = &run.leaf->blocks[run.stored];
                size_t length = blocks[0].length;
                uint32_t count = 1;
                unsigned char *bytes;
                int rc;

                while (count < run.count && length + blocks[count].length <= READ_AT_ONCE)
                        length += blocks[count++].length;
                bytes = scratch_get(SCRATCH_STORED, length);
                if (!bytes)
                        return fail_oom(reterr);
                rc = byte_store_read(native->store, bytes, length, run.leaf->blocks_start + blocks[0].offset, reterr);
                for (uint32_t i = 0; rc >= 0 && i < count; i++) {
                        rc = unpack_block(native, run.block + i, &blocks[i], bytes + (blocks[i].offset - blocks[0].offset),
                                          to, reterr);
                        to += raw_length(native, run.block + i);
                }
                if (rc < 0)
                        return rc;
                run.block += count;
                run.stored += count;
                run.count -= count;
        }
        return 0;
}

/* Blocks that were read from not long ago, by the hash of owner and number: the newest of each place. */
#define TOUCHED_COUNT 1024 /* as many as the cache holds by default */

static atomic_uint_fast64_t touched[TOUCHED_COUNT];

/* Whether this is the first time, as far as is remembered. */
static bool touch(CacheKey key) {
        uint64_t hash = (key.owner * 0x9e3779b97f4a7c15u ^ key.item) * 0xd6e8feb86659fd93u | 1;

        return atomic_exchange_explicit(&touched[(hash >> 32) % TOUCHED_COUNT], hash, memory_order_relaxed) != hash;
}

typedef struct BlockRequest {
        const NativeLayer *native;
        Run run; /* of one block */
} BlockRequest;

static int load_block(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        const BlockRequest *request = context;
        uint32_t length = raw_length(request->native, request->run.block);
        CLEANUP(freep) unsigned char *block = NULL;
        int rc;

        block = malloc(length);
        if (!block)
                return fail_oom(reterr);
        rc = read_whole_blocks(request->native, request->run, block, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(block);
        *ret_cost = length;
        return 0;
}

static const CacheLoader block_loader = { load_block, free };

/* A part of one block, of which no more is decompressed than what lies before the part's end. */
static int read_once(const NativeLayer *native, Run run, uint32_t offset, uint32_t length, void *to, Reason *reterr) {
        const StoredBlock *stored = &run.leaf->blocks[run.stored];
        size_t room = round_up(stored->length, 64);
        unsigned char *bytes = scratch_get(SCRATCH_STORED, room + offset + length), *raw = bytes + room;
        int rc;

        if (!bytes)
                return fail_oom(reterr);
        rc = byte_store_read(native->store, bytes, stored->length, run.leaf->blocks_start + stored->offset, reterr);
        if (rc >= 0)
                rc = check_block(native, run.block, stored, bytes, reterr);
        if (rc < 0)
                return rc;
        if (stored->length == raw_length(native, run.block)) {
                memcpy(to, bytes + offset, length);
                return 0;
        }
        rc = native->codec->decompress_start(bytes, stored->length, raw, offset + length);
        if (rc < 0)
                return damaged_block(native, run.block, rc, "it cannot be decompressed", reterr);
        memcpy(to, raw + offset, length);
        return 0;
}

/* A part of one block, by way of the cache where more of it may be wanted: it is the end of something longer, or was read
 * from not long ago. */
static int read_part(const NativeLayer *native, Run run, uint32_t offset, uint32_t length, bool alone, void *to,
                     Reason *reterr) {
        CLEANUP(cache_releasep) CacheEntry *cached = NULL;
        BlockRequest request = { native, run };
        CacheKey key = { native->owner, BLOCK_ITEMS | run.block };

        if (!cache_find(native->memory, key, &cached)) {
                bool first = touch(key);
                int rc;

                if (first && alone && native->codec->decompress_start)
                        return read_once(native, run, offset, length, to, reterr);
                rc = cache_get(native->memory, key, &block_loader, &request, &cached, reterr);
                if (rc < 0)
                        return rc;
        }
        memcpy(to, (const unsigned char *) cache_value(cached) + offset, length);
        return 0;
}

/* A part of a block, whole ones, a part. */
int native_read_record(const NativeLayer *native, const Page *leaf, const PageRecord *record, uint64_t start, uint64_t end,
                       unsigned char *to, Reason *reterr) {
        uint64_t size = native->bounds.block_size;
        bool alone = start / size == (end - 1) / size;

        while (start < end) {
                uint64_t block = start / size, whole = end == native->bounds.disk_size ? divide_up(end, size) : end / size;
                uint32_t skip = (uint32_t) (start % size);
                Run run = { leaf, block, record->stored + (uint32_t) (block - record->block), 1 };
                uint64_t part;
                int rc;

                if (skip == 0 && whole > block) {
                        run.count = (uint32_t) (whole - block);
                        part = min_u64(whole * size, end) - start;
                        rc = read_whole_blocks(native, run, to, reterr);
                } else {
                        part = min_u64(end - start, raw_length(native, block) - skip);
                        rc = read_part(native, run, skip, (uint32_t) part, alone, to, reterr);
                }
                if (rc < 0)
                        return rc;
                start += part;
                to += part;
        }
        return 0;
}
