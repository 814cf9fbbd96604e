/* core/formats/native/page.h - index pages of a native layer, decoded and checked.
 *
 * page_decode() is where the bytes of a page come in: after it all offsets lie within the file, all blocks within
 * the disk, and everything is in order.
 * Threads: a decoded page is immutable. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "extent/extent-map.h"
#include "util/cleanup.h"
#include "util/reason.h"

/* What a layer's pages have to fit into. */
typedef struct PageBounds {
        uint64_t data_start;  /* offset in the file of whatever comes behind the header */
        uint64_t block_count; /* of the disk */
        uint64_t disk_size;   /* bytes */
        uint32_t block_size;
} PageBounds;

/* Where a page is, as the page above it (or the footer) says. */
typedef struct PageEntry {
        uint64_t first, end; /* blocks that it tells of */
        uint64_t offset, checksum;
        uint32_t length, level;
} PageEntry;

typedef struct StoredBlock {
        uint64_t checksum;
        uint32_t offset; /* behind the page's first stored block */
        uint32_t length;
} StoredBlock;

typedef struct PageRecord {
        uint64_t block; /* the first */
        uint32_t count;
        uint32_t stored; /* data: index in the page's blocks */
        ExtentState state;
} PageRecord;

typedef struct Page {
        PageEntry self;        /* the entry that it was checked against */
        uint32_t level;        /* 0: a leaf */
        uint32_t count;        /* of entries (level > 0) or records */
        uint64_t blocks_start; /* leaf: offset in the file of its first stored block */
        PageEntry *entries;
        PageRecord *records;
        StoredBlock *blocks;
} Page;

/* Whether an entry can be one at all: within the file before limit, in order, not too long. -EBADMSG. */
int page_entry_check(const PageEntry *entry, const PageBounds *bounds, uint64_t limit, Reason *reterr);

/* Checks and decodes a page of entry->length bytes. -EBADMSG with the reason; ret_cost: bytes of memory. */
int page_decode(const void *bytes, const PageEntry *entry, const PageBounds *bounds, Page **ret, size_t *ret_cost,
                Reason *reterr);
Page *page_free(Page *page); /* always NULL */
DEFINE_CLEANUP(Page, page_free)

/* Whether the page was checked against this very entry. */
bool page_is_of(const Page *page, const PageEntry *entry);

/* Index of the first entry or record that ends behind the block; count where there is none. O(log n). */
uint32_t page_find(const Page *page, uint64_t block);
