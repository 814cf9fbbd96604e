#include "formats/native/layer-reader.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "codec/checksum.h"
#include "codec/codec.h"
#include "formats/native/layer-writer.h"
#include "formats/native/layout.h"
#include "formats/native/page.h"
#include "util/bytes.h"
#include "util/scratch.h"

#define READ_AT_ONCE (1u << 20)         /* stored bytes that are fetched together, a block where that is more */
#define BLOCK_ITEMS (UINT64_C(1) << 63) /* cache items of blocks have this bit; those of pages are offsets in the file */

typedef struct NativeLayer {
        Layer layer;
        ByteStore *store;
        Cache *memory;
        uint64_t owner; /* of what is in memory */
        const Codec *codec;
        PageBounds bounds;
        PageEntry root;
} NativeLayer;

static int damaged(const NativeLayer *native, Reason *reterr, int rc, const char *what) {
        return fail(reterr, rc, "%s is damaged: %s", byte_store_name(native->store), what);
}

/* What opening reads: most headers are in the first, and the root is nearly always in the second. */
#define HEAD_LENGTH 4096u
#define TAIL_LENGTH (PAGE_MAX + FOOTER_SIZE)

/* The whole header, one read where it is not longer than most; length is what it has to be. */
static int read_header(const NativeLayer *native, unsigned char **ret, size_t *ret_length, Reason *reterr) {
        uint64_t size = byte_store_size(native->store);
        CLEANUP(freep) unsigned char *header = malloc(HEAD_LENGTH);
        size_t length, there = min_u64(size, HEAD_LENGTH);
        int rc;

        if (!header)
                return fail_oom(reterr);
        rc = byte_store_read(native->store, header, there, 0, reterr);
        if (rc < 0)
                return rc;
        if (memcmp(header, HEADER_MAGIC, 8) != 0)
                return damaged(native, reterr, -EBADMSG, "it does not begin as a layer does");
        length = load_le32(header + 44);
        if (length > DESCRIPTION_MAX || length > size - HEADER_FIXED_SIZE - sizeof(uint64_t) - FOOTER_SIZE)
                return damaged(native, reterr, -EBADMSG, "its header is too long");
        length += HEADER_FIXED_SIZE + sizeof(uint64_t);
        if (length > there) {
                free(header);
                header = malloc(length);
                if (!header)
                        return fail_oom(reterr);
                rc = byte_store_read(native->store, header, length, 0, reterr);
                if (rc < 0)
                        return rc;
        }
        *ret = STEAL_PTR(header);
        *ret_length = length;
        return 0;
}

static int load_header(NativeLayer *native, uint64_t *ret_checksum, Reason *reterr) {
        CLEANUP(freep) unsigned char *header = NULL;
        size_t length = 0;
        int rc;

        rc = read_header(native, &header, &length, reterr);
        if (rc < 0)
                return rc;
        *ret_checksum = load_le64(header + length - sizeof(uint64_t));
        if (checksum(header, length - sizeof(uint64_t)) != *ret_checksum)
                return damaged(native, reterr, -EBADMSG, "its header's checksum does not fit");

        if (load_le32(header + 8) != LAYOUT_VERSION || load_le64(header + 16) != 0)
                return fail(reterr, -ENOTSUP, "%s was written by a newer version", byte_store_name(native->store));
        native->codec = codec_by_id(load_le32(header + 12));
        if (!native->codec)
                return fail(reterr, -ENOTSUP, "%s is compressed by a codec that this version does not know",
                            byte_store_name(native->store));
        native->bounds.disk_size = load_le64(header + 32);
        native->bounds.block_size = load_le32(header + 40);
        if (native->bounds.disk_size > INT64_MAX || !is_power_of_2(native->bounds.block_size) ||
            native->bounds.block_size < NATIVE_BLOCK_SIZE_MIN || native->bounds.block_size > NATIVE_BLOCK_SIZE_MAX)
                return damaged(native, reterr, -EBADMSG, "its header has an impossible size");
        native->bounds.block_count = divide_up(native->bounds.disk_size, native->bounds.block_size);
        native->bounds.data_start = length;
        native->layer.disk_size = native->bounds.disk_size;
        return 0;
}

static int load_footer(NativeLayer *native, const unsigned char *footer, uint64_t header_checksum, uint64_t seal,
                       Reason *reterr) {
        uint64_t at = byte_store_size(native->store) - FOOTER_SIZE;
        Reason reason = REASON_INIT;
        int rc;

        if (memcmp(footer, FOOTER_MAGIC, 8) != 0 ||
            checksum(footer, FOOTER_SIZE - sizeof(uint64_t)) != load_le64(footer + 96))
                return damaged(native, reterr, -EBADMSG, "its footer's checksum does not fit");
        if (load_le64(footer + 8) != header_checksum)
                return damaged(native, reterr, -EBADMSG, "header and footer are of different layers");
        if (load_le64(footer + 96) != seal)
                return damaged(native, reterr, -EBADMSG, "it is another layer than the manifest names");
        native->root = (PageEntry) {
                .first = load_le64(footer + 16),
                .end = load_le64(footer + 24),
                .offset = load_le64(footer + 32),
                .checksum = load_le64(footer + 40),
                .length = load_le32(footer + 48),
                .level = load_le32(footer + 52),
        };
        rc = page_entry_check(&native->root, &native->bounds, at, &reason);
        return rc < 0 ? damaged(native, reterr, rc, reason.text) : 0;
}

typedef struct PageRequest {
        const NativeLayer *native;
        const PageEntry *entry;
        const unsigned char *tail; /* the file from tail_start on, where that has been read; or NULL */
        uint64_t tail_start;
} PageRequest;

static int load_page(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        const PageRequest *request = context;
        const PageEntry *entry = request->entry;
        unsigned char buffer[PAGE_MAX];
        const unsigned char *bytes = buffer;
        Reason reason = REASON_INIT;
        Page *page;
        int rc;

        if (request->tail && entry->offset >= request->tail_start)
                bytes = request->tail + (entry->offset - request->tail_start);
        else {
                rc = byte_store_read(request->native->store, buffer, entry->length, entry->offset, reterr);
                if (rc < 0)
                        return rc;
        }
        rc = page_decode(bytes, entry, &request->native->bounds, &page, ret_cost, &reason);
        if (rc < 0)
                return fail(reterr, rc == -ENOMEM ? rc : -EIO, "%s is damaged: the index page at %" PRIu64 ": %s",
                            byte_store_name(request->native->store), entry->offset, reason.text);
        *ret = page;
        return 0;
}

static void free_page(void *page) {
        page_free(page);
}

static const CacheLoader page_loader = { load_page, free_page };

static int get_page(const PageRequest *request, CacheEntry **ret, Reason *reterr) {
        CacheKey key = { request->native->owner, request->entry->offset };
        CLEANUP(cache_releasep) CacheEntry *cached = NULL;
        int rc;

        rc = cache_get(request->native->memory, key, &page_loader, (void *) request, &cached, reterr);
        if (rc < 0)
                return rc;
        /* It was checked against the entry that led to it first: by another one, nothing of it can be trusted. */
        if (!page_is_of(cache_value(cached), request->entry))
                return fail(reterr, -EIO, "%s is damaged: the index page at %" PRIu64 ": several entries lead to it",
                            byte_store_name(request->native->store), request->entry->offset);
        *ret = STEAL_PTR(cached);
        return 0;
}

/* The leaf that tells of the first block in [block, end) that any leaf tells of; *ret_leaf NULL where there is none.
 * ret_entry: what the tree says of that leaf; on failure of the page that could not be had. */
static int find_leaf(const NativeLayer *native, uint64_t block, uint64_t end, CacheEntry **ret_leaf, PageEntry *ret_entry,
                     Reason *reterr) {
        PageEntry entry = native->root;

        while (entry.end > block && entry.first < end) {
                CLEANUP(cache_releasep) CacheEntry *cached = NULL;
                const Page *page;
                int rc;

                *ret_entry = entry;
                rc = get_page(&(PageRequest) { .native = native, .entry = &entry }, &cached, reterr);
                if (rc < 0)
                        return rc;
                page = cache_value(cached);
                if (page->level == 0) {
                        *ret_leaf = STEAL_PTR(cached);
                        return 0;
                }
                entry = page->entries[page_find(page, block)];
        }
        *ret_leaf = NULL;
        return 0;
}

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
                int rc = find_leaf(native, block, end, &cached, &entry, reterr);

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

/* [start, end) within a data record: a part of a block, whole ones, a part. */
static int read_record(const NativeLayer *native, const Page *leaf, const PageRecord *record, uint64_t start, uint64_t end,
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
                int rc = find_leaf(native, at / size, divide_up(end, size), &cached, &entry, reterr);

                if (rc < 0)
                        return rc;
                leaf = cached ? cache_value(cached) : NULL;
                for (uint32_t i = leaf ? page_find(leaf, at / size) : 0; leaf && i < leaf->count && at < end; i++) {
                        const PageRecord *record = &leaf->records[i];
                        uint64_t part_end = min_u64(end, (record->block + record->count) * size);

                        if (record->block * size > at || record->state != EXTENT_DATA)
                                break;
                        rc = read_record(native, leaf, record, at, part_end, (unsigned char *) buffer + (at - offset),
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

        if (find_leaf(native, block, end, &cached, &entry, NULL) < 0 || !cached)
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

static const LayerOps native_ops = {
        .extents = native_extents,
        .read = native_read,
        .expect = native_expect,
        .free = native_free,
};

static void native_freep(NativeLayer **native) {
        if (*native)
                native_free(&(*native)->layer);
}

/* Header and footer, and the root into the cache. */
static int load_ends(NativeLayer *native, uint64_t seal, Reason *reterr) {
        uint64_t size = byte_store_size(native->store), header_checksum = 0;
        CLEANUP(cache_releasep) CacheEntry *cached = NULL;
        CLEANUP(freep) unsigned char *tail = NULL;
        PageRequest root = { .native = native, .entry = &native->root };
        size_t length = min_u64(size, TAIL_LENGTH);
        int rc;

        if (size < HEADER_FIXED_SIZE + sizeof(uint64_t) + FOOTER_SIZE)
                return damaged(native, reterr, -EBADMSG, "it is too short");
        rc = load_header(native, &header_checksum, reterr);
        if (rc < 0)
                return rc;
        tail = malloc(length);
        if (!tail)
                return fail_oom(reterr);
        rc = byte_store_read(native->store, tail, length, size - length, reterr);
        if (rc < 0)
                return rc;
        rc = load_footer(native, tail + length - FOOTER_SIZE, header_checksum, seal, reterr);
        if (rc < 0)
                return rc;
        root.tail = tail;
        root.tail_start = size - length;
        (void) get_page(&root, &cached, NULL); /* where it is damaged, whoever needs it will be told */
        return 0;
}

int native_layer_open(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr) {
        CLEANUP(native_freep) NativeLayer *native = NULL;
        ByteStore *bytes;
        int rc;

        rc = file_store_open(layer_store_root(store), location->path, layer_store_files(store), &bytes, reterr);
        if (rc < 0)
                return rc;
        native = calloc(1, sizeof *native);
        if (!native) {
                byte_store_free(bytes);
                return fail_oom(reterr);
        }
        native->layer.ops = &native_ops;
        native->store = bytes;
        native->memory = layer_store_memory(store);
        native->owner = cache_new_owner();
        if (byte_store_size(bytes) != location->length)
                return damaged(native, reterr, -EBADMSG, "its length is another than the manifest says");
        rc = load_ends(native, location->seal, reterr);
        if (rc < 0)
                return rc;
        *ret = &STEAL_PTR(native)->layer;
        return 0;
}
