/* core/formats/native/layout.h - the layout of a native layer file, version 1.
 *
 * A layer is written front to back and never changed. All integers are little-endian; "checksum" is XXH3-64, seed 0
 * (core/codec/checksum.h). Blocks are numbered from 0: block n is the disk's bytes from n × block size on, and the
 * disk's last block may be shorter.
 *
 *     header | stored blocks and index pages | footer
 *
 * HEADER
 *      0  8  magic "vbfslayr"
 *      8  4  version, 1: another one is refused
 *     12  4  codec of the stored blocks: 0 none, 1 LZ4 (block format), 2 zstd
 *     16  8  required features: a reader refuses a layer with a bit that it does not know (none yet)
 *     24  8  optional features: bits that a reader may ignore (none yet)
 *     32  8  size of the disk in bytes
 *     40  4  block size in bytes, a power of 2 from 4096 to 2097152
 *     44  4  length n of the description, at most 65536
 *     48  n  description: a JSON object with the strings "repository", "vm_uuid", "vm", "disk", "capture"
 *   48+n  8  checksum of all before
 *
 * STORED BLOCKS lie in the order of the disk. A block is its compressed bytes, or, where those are not fewer, the block
 * itself: the stored length then equals the block's length. All blocks of one leaf page lie behind each other without
 * gaps, before the page.
 *
 * INDEX PAGES, at most 16384 bytes each, form a tree. A page goes out as soon as it is full, behind the blocks or pages
 * that it tells of. What no page tells of is absent: the parent has it.
 *
 *   Leaf (level 0)
 *      0  4  "LEAF"
 *      4  4  level, 0
 *      8  4  number of records
 *     12  4  0
 *     16  8  first block: where the first record begins
 *     24  8  offset in the file of its first stored block (where there is none: of the page)
 *     32  …  records, each
 *            8  bits 0–1: kind: 0 zeroes, 1 data, 2 unreadable; bits 2–31: number of blocks, not 0;
 *               bits 32–63: blocks between the end of the record before and this one, which are absent
 *            and for data, for each block
 *            4  stored length
 *            8  checksum of the stored bytes
 *
 *   Node (level 1 and more)
 *      0  4  "NODE"
 *      4  4  level
 *      8  4  number of entries
 *     12  4  0
 *     16  …  entries, ascending, each for a page of the level below
 *            8  first block that the page tells of
 *            8  end: the block behind the last one
 *            8  offset of the page in the file
 *            8  checksum of the page
 *            4  length of the page
 *            4  0
 *
 * FOOTER, the last 104 bytes of the file
 *      0  8  magic "vbfsfoot"
 *      8  8  the header's checksum
 *     16  8  root page: first block (0 where the layer is empty)
 *     24  8            end (0 where the layer is empty)
 *     32  8            offset
 *     40  8            checksum
 *     48  4            length
 *     52  4            level
 *     56  8  stored blocks
 *     64  8  bytes of the disk that are data,
 *     72  8                             zeroes,
 *     80  8                             unreadable
 *     88  8  bytes of all index pages
 *     96  8  checksum of the footer before. This is the layer's seal: it covers header and root, the root its pages and
 *            those the blocks. Manifests record it.
 *
 * The index takes 12 bytes for a stored block in a run, 20 for one that stands alone, and 0.3 % of that for nodes. */
#pragma once

#define LAYOUT_VERSION 1

#define HEADER_MAGIC "vbfslayr"
#define HEADER_FIXED_SIZE 48
#define DESCRIPTION_MAX 65536

#define FOOTER_MAGIC "vbfsfoot"
#define FOOTER_SIZE 104

#define PAGE_MAX 16384
#define LEAF_MAGIC "LEAF"
#define LEAF_HEADER_SIZE 32
#define NODE_MAGIC "NODE"
#define NODE_HEADER_SIZE 16
#define RECORD_SIZE 8
#define RECORD_BLOCK_SIZE 12
#define NODE_ENTRY_SIZE 40
#define RECORD_COUNT_MAX ((1u << 30) - 1)
#define LEVELS_MAX 8 /* 408 entries a node: more than any file can hold */

enum {
        RECORD_ZERO = 0,
        RECORD_DATA = 1,
        RECORD_UNREADABLE = 2,
};
