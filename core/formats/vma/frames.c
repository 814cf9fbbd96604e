#include "formats/vma/frames.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <zstd.h>

#include "util/bytes.h"
#include "util/scratch.h"

#define FRAME_MAGIC 0xfd2fb528u
#define SKIPPABLE_MAGIC 0x184d2a50u      /* and the 15 behind it */
#define SEEK_TABLE_MAGIC 0x184d2a5eu     /* of the frame that the seek table is */
#define SEEK_FOOTER_MAGIC 0x8f92eab1u
#define SEEK_FOOTER_SIZE 9u              /* number of frames (4), flags (1), magic (4) */
#define SEEK_CHECKSUMS 0x80u             /* flag: an entry has 4 bytes more */
#define SEEK_RESERVED 0x7cu
#define FRAME_HEADER_MAX 18u
#define FRAMES_MAX (64u << 20)
#define FRAMES_RECENT 4

typedef struct Frame {
        uint64_t packed_at, unpacked_at;
        uint32_t packed_length, unpacked_length;
} Frame;

typedef struct Frames {
        ByteStore store;
        ByteStore *packed; /* borrowed */
        Cache *memory;
        uint64_t owner;
        Frame *items;
        size_t count, capacity;
        pthread_mutex_t lock; /* of the next two */
        CacheEntry *recent[FRAMES_RECENT]; /* frames are too large for the store's memory to keep many */
        size_t next_recent;
} Frames;

static void frames_free(ByteStore *store) {
        Frames *frames = (Frames *) store;

        for (size_t i = 0; i < FRAMES_RECENT; i++)
                cache_release(frames->recent[i]);
        pthread_mutex_destroy(&frames->lock);
        cache_forget(frames->memory, frames->owner);
        free(frames->items);
        free(frames->store.name);
        free(frames);
}

static int cannot(Reason *reterr, const char *why) {
        return fail(reterr, -ENOTSUP, "it cannot be read in place: %s", why);
}

static int add_frame(Frames *frames, uint64_t packed_at, uint64_t packed_length, uint64_t unpacked_length, Reason *reterr) {
        if (unpacked_length == 0)
                return 0;
        if (unpacked_length > FRAME_UNPACKED_MAX || packed_length > ZSTD_COMPRESSBOUND(FRAME_UNPACKED_MAX))
                return cannot(reterr, "its frames are too long");
        if (frames->count == FRAMES_MAX)
                return cannot(reterr, "it has too many frames");
        if (frames->count == frames->capacity) {
                size_t capacity = frames->capacity ? frames->capacity * 2 : 64;
                Frame *grown = reallocarray(frames->items, capacity, sizeof *grown);

                if (!grown)
                        return fail_oom(reterr);
                frames->items = grown;
                frames->capacity = capacity;
        }
        frames->items[frames->count++] = (Frame) {
                .packed_at = packed_at,
                .unpacked_at = frames->store.size,
                .packed_length = (uint32_t) packed_length,
                .unpacked_length = (uint32_t) unpacked_length,
        };
        frames->store.size += unpacked_length;
        return 0;
}

/* The seek table's frame at the end, where there is one: -ENOENT. */
static int load_seek_table(Frames *frames, Reason *reterr) {
        uint64_t size = byte_store_size(frames->packed), packed_at = 0, table_size;
        CLEANUP(freep) unsigned char *table = NULL;
        unsigned char footer[SEEK_FOOTER_SIZE];
        size_t entry_size;
        uint32_t count;
        int rc;

        if (size < SEEK_FOOTER_SIZE + 8)
                return -ENOENT;
        rc = byte_store_read(frames->packed, footer, sizeof footer, size - sizeof footer, reterr);
        if (rc < 0)
                return rc;
        count = load_le32(footer);
        if (load_le32(footer + 5) != SEEK_FOOTER_MAGIC || (footer[4] & SEEK_RESERVED) || count > FRAMES_MAX)
                return -ENOENT;
        entry_size = footer[4] & SEEK_CHECKSUMS ? 12 : 8;
        table_size = 8 + (uint64_t) count * entry_size + SEEK_FOOTER_SIZE;
        if (table_size > size)
                return -ENOENT;
        table = malloc(table_size);
        if (!table)
                return fail_oom(reterr);
        rc = byte_store_read(frames->packed, table, table_size, size - table_size, reterr);
        if (rc < 0)
                return rc;
        if (load_le32(table) != SEEK_TABLE_MAGIC || load_le32(table + 4) != table_size - 8)
                return -ENOENT;
        for (uint32_t i = 0; i < count; i++) {
                const unsigned char *entry = table + 8 + i * entry_size;
                uint32_t packed_length = load_le32(entry);

                if (packed_length > size - table_size - packed_at)
                        return cannot(reterr, "its seek table does not fit");
                rc = add_frame(frames, packed_at, packed_length, load_le32(entry + 4), reterr);
                if (rc < 0)
                        return rc;
                packed_at += packed_length;
        }
        return packed_at == size - table_size ? 0 : cannot(reterr, "its seek table does not fit");
}

/* Bytes of a frame's header, from its descriptor. */
static uint32_t header_length(unsigned char descriptor) {
        static const uint32_t of_dictionary[] = { 0, 1, 2, 4 }, of_content[] = { 0, 2, 4, 8 };
        bool single = descriptor & 0x20;

        return 5 + !single + of_dictionary[descriptor & 3] +
               (descriptor >> 6 == 0 && single ? 1 : of_content[descriptor >> 6]);
}

/* Where the frame ends whose blocks begin at `at`. */
static int find_end(ByteStore *packed, uint64_t at, bool has_checksum, const atomic_bool *cancel, uint64_t *ret,
                    Reason *reterr) {
        bool last = false;

        while (!last) {
                unsigned char bytes[3];
                uint32_t block, length;
                int rc;

                if (atomic_load_explicit(cancel, memory_order_relaxed))
                        return fail(reterr, -ECANCELED, "cancelled");
                if (byte_store_size(packed) - at < sizeof bytes)
                        return cannot(reterr, "it is cut off");
                rc = byte_store_read(packed, bytes, sizeof bytes, at, reterr);
                if (rc < 0)
                        return rc;
                block = bytes[0] | (uint32_t) bytes[1] << 8 | (uint32_t) bytes[2] << 16;
                last = block & 1;
                length = (block >> 1 & 3) == 1 ? 1 : block >> 3; /* of a repeated byte there is one */
                if (length > byte_store_size(packed) - at - sizeof bytes)
                        return cannot(reterr, "it is cut off");
                at += sizeof bytes + length;
        }
        if (has_checksum && byte_store_size(packed) - at < 4)
                return cannot(reterr, "it is cut off");
        *ret = at + (has_checksum ? 4 : 0);
        return 0;
}

/* One frame, from its header on: *at becomes its end. */
static int hop(Frames *frames, uint64_t *at, const atomic_bool *cancel, Reason *reterr) {
        uint64_t left = byte_store_size(frames->packed) - *at, end = 0;
        unsigned char header[FRAME_HEADER_MAX];
        size_t there = (size_t) min_u64(left, sizeof header);
        unsigned long long content;
        int rc;

        rc = byte_store_read(frames->packed, header, there, *at, reterr);
        if (rc < 0)
                return rc;
        if (there >= 8 && (load_le32(header) & ~15u) == SKIPPABLE_MAGIC) {
                if (load_le32(header + 4) > left - 8)
                        return cannot(reterr, "it is cut off");
                *at += 8 + (uint64_t) load_le32(header + 4);
                return 0;
        }
        if (there < 5 || load_le32(header) != FRAME_MAGIC || header_length(header[4]) > there)
                return cannot(reterr, "there is no frame where one should be");
        content = ZSTD_getFrameContentSize(header, there);
        if (content == ZSTD_CONTENTSIZE_UNKNOWN || content == ZSTD_CONTENTSIZE_ERROR)
                return cannot(reterr, "a frame does not tell its size");
        /* Refused before its blocks are looked at. */
        if (content > FRAME_UNPACKED_MAX)
                return cannot(reterr, "its frames are too long");
        rc = find_end(frames->packed, *at + header_length(header[4]), header[4] & 4, cancel, &end, reterr);
        if (rc == 0)
                rc = add_frame(frames, *at, end - *at, content, reterr);
        *at = end;
        return rc;
}

typedef struct FrameRequest {
        const Frames *frames;
        const Frame *frame;
} FrameRequest;

static int load_frame(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        const FrameRequest *request = context;
        const Frame *frame = request->frame;
        CLEANUP(freep) void *unpacked = malloc(frame->unpacked_length);
        void *packed = scratch_get(SCRATCH_STORED, frame->packed_length);
        size_t length;
        int rc;

        if (!packed || !unpacked)
                return fail_oom(reterr);
        rc = byte_store_read(request->frames->packed, packed, frame->packed_length, frame->packed_at, reterr);
        if (rc < 0)
                return rc;
        length = ZSTD_decompress(unpacked, frame->unpacked_length, packed, frame->packed_length);
        if (ZSTD_isError(length) || length != frame->unpacked_length)
                return fail(reterr, -EIO, "%s is damaged: zstd cannot unpack the frame at %" PRIu64 ": %s",
                            byte_store_name(request->frames->packed), frame->packed_at,
                            ZSTD_isError(length) ? ZSTD_getErrorName(length) : "it has another length than it tells");
        *ret_cost = frame->unpacked_length;
        *ret = STEAL_PTR(unpacked);
        return 0;
}

static const CacheLoader frame_loader = { load_frame, free };

/* Takes the reference over. */
static void keep_recent(Frames *frames, CacheEntry *entry) {
        CacheEntry *dropped = entry;

        pthread_mutex_lock(&frames->lock);
        for (size_t i = 0; i < FRAMES_RECENT; i++)
                if (frames->recent[i] == entry)
                        entry = NULL;
        if (entry) {
                dropped = frames->recent[frames->next_recent];
                frames->recent[frames->next_recent] = entry;
                frames->next_recent = (frames->next_recent + 1) % FRAMES_RECENT;
        }
        pthread_mutex_unlock(&frames->lock);
        cache_release(dropped);
}

static size_t find_frame(const Frames *frames, uint64_t offset) {
        size_t low = 0, high = frames->count;

        while (high - low > 1) {
                size_t middle = low + (high - low) / 2;

                if (frames->items[middle].unpacked_at <= offset)
                        low = middle;
                else
                        high = middle;
        }
        return low;
}

static int frames_read(ByteStore *store, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        Frames *frames = (Frames *) store;
        unsigned char *to = buffer;

        for (size_t i = find_frame(frames, offset); length > 0; i++) {
                FrameRequest request = { frames, &frames->items[i] };
                uint64_t skip = offset - request.frame->unpacked_at;
                size_t part = (size_t) min_u64(length, request.frame->unpacked_length - skip);
                CacheEntry *entry;
                int rc;

                rc = cache_get(frames->memory, (CacheKey) { frames->owner, i }, &frame_loader, &request, &entry, reterr);
                if (rc < 0)
                        return rc;
                memcpy(to, (unsigned char *) cache_value(entry) + skip, part);
                keep_recent(frames, entry);
                to += part;
                offset += part;
                length -= part;
        }
        return 0;
}

static const ByteStoreOps frames_ops = { .read = frames_read, .free = frames_free };

int frames_open(ByteStore *packed, Cache *memory, const atomic_bool *cancel, ByteStore **ret, Reason *reterr) {
        CLEANUP(byte_store_freep) ByteStore *store = NULL;
        Frames *frames = calloc(1, sizeof *frames);
        int rc;

        if (!frames)
                return fail_oom(reterr);
        *frames = (Frames) {
                .store = { .ops = &frames_ops, .name = strdup(byte_store_name(packed)) },
                .packed = packed,
                .memory = memory,
                .owner = cache_new_owner(),
        };
        pthread_mutex_init(&frames->lock, NULL);
        store = &frames->store;
        if (!store->name)
                return fail_oom(reterr);
        rc = load_seek_table(frames, reterr);
        for (uint64_t at = 0; rc == -ENOENT && at < byte_store_size(packed);) {
                int hopped = hop(frames, &at, cancel, reterr);

                if (hopped < 0)
                        rc = hopped;
        }
        if (rc < 0 && rc != -ENOENT)
                return rc;
        if (frames->count < 2)
                return cannot(reterr, "it has one frame");
        *ret = STEAL_PTR(store);
        return 0;
}
