#include "formats/native/page.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "codec/checksum.h"
#include "formats/native/layout.h"
#include "util/bytes.h"

/* Allocated with what belongs to it in one piece. */
struct PageSpace {
        Page page;
        uint64_t payload[];
};

Page *page_free(Page *page) {
        free(page);
        return NULL;
}

static int malformed(Reason *reterr, const char *what) {
        return fail(reterr, -EBADMSG, "%s", what);
}

int page_entry_check(const PageEntry *entry, const PageBounds *bounds, uint64_t limit, Reason *reterr) {
        if (entry->length < NODE_HEADER_SIZE || entry->length > PAGE_MAX)
                return malformed(reterr, "a page's length is impossible");
        if (entry->offset < bounds->data_start || entry->offset > limit || entry->length > limit - entry->offset)
                return malformed(reterr, "a page lies outside");
        if (entry->first > entry->end || entry->end > bounds->block_count)
                return malformed(reterr, "a page tells of blocks that the disk does not have");
        if (entry->level >= LEVELS_MAX)
                return malformed(reterr, "the tree is too deep");
        return 0;
}

/* A page with room behind it for all that it can hold. */
static Page *page_new(const PageEntry *entry, size_t payload, size_t *ret_cost) {
        Page *page;

        *ret_cost = sizeof(struct PageSpace) + payload;
        page = calloc(1, *ret_cost);
        if (page)
                page->self = *entry;
        return page;
}

static int decode_node(const unsigned char *bytes, const PageEntry *entry, const PageBounds *bounds, Page **ret,
                       size_t *ret_cost, Reason *reterr) {
        CLEANUP(page_freep) Page *page = NULL;
        uint32_t count = load_le32(bytes + 8);
        uint64_t end = entry->first;

        if (count == 0 || entry->length != NODE_HEADER_SIZE + (uint64_t) count * NODE_ENTRY_SIZE)
                return malformed(reterr, "a node's length and number of entries do not fit");
        page = page_new(entry, count * sizeof(PageEntry), ret_cost);
        if (!page)
                return fail_oom(reterr);
        page->level = entry->level;
        page->count = count;
        page->entries = (PageEntry *) ((struct PageSpace *) page)->payload;
        for (uint32_t i = 0; i < count; i++) {
                const unsigned char *at = bytes + NODE_HEADER_SIZE + (size_t) i * NODE_ENTRY_SIZE;
                PageEntry *child = &page->entries[i];
                int rc;

                *child = (PageEntry) {
                        .first = load_le64(at),
                        .end = load_le64(at + 8),
                        .offset = load_le64(at + 16),
                        .checksum = load_le64(at + 24),
                        .length = load_le32(at + 32),
                        .level = entry->level - 1,
                };
                /* Pages lie before the page that tells of them: so none can lead back. */
                rc = page_entry_check(child, bounds, entry->offset, reterr);
                if (rc < 0)
                        return rc;
                if (child->first < end || child->first >= child->end || (i == 0 && child->first != entry->first))
                        return malformed(reterr, "a node's entries are not in order");
                end = child->end;
        }
        if (end != entry->end)
                return malformed(reterr, "a node ends elsewhere than it should");
        *ret = STEAL_PTR(page);
        return 0;
}

/* Counts what the records hold, so that there is room for it. */
static int count_blocks(const unsigned char *bytes, uint32_t length, uint32_t record_count, size_t *ret, Reason *reterr) {
        size_t at = LEAF_HEADER_SIZE, blocks = 0;

        for (uint32_t i = 0; i < record_count; i++) {
                uint64_t head, count;

                if (length - at < RECORD_SIZE)
                        return malformed(reterr, "a leaf is cut short");
                head = load_le64(bytes + at);
                count = (uint32_t) head >> 2;
                at += RECORD_SIZE;
                if ((head & 3) != RECORD_DATA)
                        continue;
                if (count > (length - at) / RECORD_BLOCK_SIZE)
                        return malformed(reterr, "a leaf is cut short");
                at += count * RECORD_BLOCK_SIZE;
                blocks += count;
        }
        if (at != length)
                return malformed(reterr, "a leaf has bytes too many");
        *ret = blocks;
        return 0;
}

static int decode_blocks(const unsigned char *bytes, const PageRecord *record, const PageBounds *bounds, StoredBlock *blocks,
                         uint64_t *offset, Reason *reterr) {
        for (uint32_t i = 0; i < record->count; i++) {
                const unsigned char *at = bytes + (size_t) i * RECORD_BLOCK_SIZE;
                uint64_t start = (record->block + i) * bounds->block_size;
                StoredBlock *block = &blocks[record->stored + i];

                block->length = load_le32(at);
                block->checksum = load_le64(at + 4);
                block->offset = (uint32_t) *offset;
                if (block->length == 0 || block->length > min_u64(bounds->block_size, bounds->disk_size - start))
                        return malformed(reterr, "a stored block's length is impossible");
                *offset += block->length; /* at most 1365 blocks of 2 MiB: below 4 GiB */
        }
        return 0;
}

static int decode_leaf(const unsigned char *bytes, const PageEntry *entry, const PageBounds *bounds, Page **ret,
                       size_t *ret_cost, Reason *reterr) {
        static const ExtentState states[] = { [RECORD_ZERO] = EXTENT_ZERO, [RECORD_DATA] = EXTENT_DATA,
                                              [RECORD_UNREADABLE] = EXTENT_UNREADABLE };
        CLEANUP(page_freep) Page *page = NULL;
        uint32_t record_count = load_le32(bytes + 8), stored = 0;
        uint64_t end = entry->first, offset = 0;
        size_t at = LEAF_HEADER_SIZE, blocks = 0;
        int rc;

        if (entry->length < LEAF_HEADER_SIZE || record_count > (entry->length - LEAF_HEADER_SIZE) / RECORD_SIZE)
                return malformed(reterr, "a leaf's length and number of records do not fit");
        rc = count_blocks(bytes, entry->length, record_count, &blocks, reterr);
        if (rc < 0)
                return rc;
        page = page_new(entry, blocks * sizeof(StoredBlock) + record_count * sizeof(PageRecord), ret_cost);
        if (!page)
                return fail_oom(reterr);
        page->count = record_count;
        page->blocks_start = load_le64(bytes + 24);
        page->blocks = (StoredBlock *) ((struct PageSpace *) page)->payload;
        page->records = (PageRecord *) (page->blocks + blocks);

        if (load_le64(bytes + 16) != entry->first)
                return malformed(reterr, "a leaf begins elsewhere than it should");
        for (uint32_t i = 0; i < record_count; i++) {
                PageRecord *record = &page->records[i];
                uint64_t head = load_le64(bytes + at);

                *record = (PageRecord) { .block = end + (head >> 32), .count = (uint32_t) head >> 2, .stored = stored };
                at += RECORD_SIZE;
                if ((head & 3) > RECORD_UNREADABLE || record->count == 0 || (i == 0 && head >> 32) ||
                    record->block > bounds->block_count || record->count > bounds->block_count - record->block)
                        return malformed(reterr, "a leaf's record is impossible");
                record->state = states[head & 3];
                if (record->state == EXTENT_DATA) {
                        rc = decode_blocks(bytes + at, record, bounds, page->blocks, &offset, reterr);
                        if (rc < 0)
                                return rc;
                        at += (size_t) record->count * RECORD_BLOCK_SIZE;
                        stored += record->count;
                }
                end = record->block + record->count;
        }
        if (end != entry->end)
                return malformed(reterr, "a leaf ends elsewhere than it should");
        if (page->blocks_start < bounds->data_start || page->blocks_start > entry->offset ||
            offset > entry->offset - page->blocks_start)
                return malformed(reterr, "a leaf's blocks lie outside");
        *ret = STEAL_PTR(page);
        return 0;
}

int page_decode(const void *bytes, const PageEntry *entry, const PageBounds *bounds, Page **ret, size_t *ret_cost,
                Reason *reterr) {
        const unsigned char *b = bytes;

        if (checksum(bytes, entry->length) != entry->checksum)
                return malformed(reterr, "its checksum does not fit");
        if (memcmp(b, entry->level > 0 ? NODE_MAGIC : LEAF_MAGIC, 4) != 0 || load_le32(b + 4) != entry->level)
                return malformed(reterr, "it is no page of its level");
        return entry->level > 0 ? decode_node(b, entry, bounds, ret, ret_cost, reterr)
                                : decode_leaf(b, entry, bounds, ret, ret_cost, reterr);
}

bool page_is_of(const Page *page, const PageEntry *entry) {
        return page->self.offset == entry->offset && page->self.length == entry->length &&
               page->self.level == entry->level && page->self.first == entry->first && page->self.end == entry->end &&
               page->self.checksum == entry->checksum;
}

static uint64_t end_of(const Page *page, uint32_t index) {
        return page->level > 0 ? page->entries[index].end : page->records[index].block + page->records[index].count;
}

uint32_t page_find(const Page *page, uint64_t block) {
        uint32_t low = 0, high = page->count;

        while (low < high) {
                uint32_t middle = low + (high - low) / 2;

                if (end_of(page, middle) <= block)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low;
}
