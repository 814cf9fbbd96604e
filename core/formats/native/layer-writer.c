#include "formats/native/layer-writer.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <string.h>

#include "codec/checksum.h"
#include "formats/native/layout.h"
#include "formats/native/page.h"
#include "util/bytes.h"

/* A page that is being filled. */
typedef struct OpenPage {
        unsigned char bytes[PAGE_MAX];
        size_t length;
        uint32_t count;       /* of records or entries */
        uint64_t first, end;  /* blocks */
} OpenPage;

struct LayerWriter {
        ByteSink *sink;
        const Codec *codec;
        uint64_t disk_size, block_count;
        uint32_t block_size;
        uint64_t header_checksum;
        uint64_t next_block;      /* what comes now begins here or behind */

        OpenPage leaf;
        size_t record;            /* of the leaf: position of the last one */
        OpenPage *nodes[LEVELS_MAX]; /* by level; NULL: nothing there yet; [0] is not used */
        LayerTotals totals;
        bool broken; /* something failed, or all is done: what is in the sink can take no more */
};

void packed_block_pack(const Codec *codec, int level, const void *raw, uint32_t raw_length, void *scratch,
                       PackedBlock *ret) {
        size_t length;

        if (bytes_are_zero(raw, raw_length)) {
                *ret = (PackedBlock) { .bytes = raw, .length = 0 };
                return;
        }
        length = codec->compress(raw, raw_length, scratch, raw_length - 1, level ? level : codec->default_level);
        if (length > 0)
                *ret = (PackedBlock) { .bytes = scratch, .length = (uint32_t) length };
        else
                *ret = (PackedBlock) { .bytes = raw, .length = raw_length };
        ret->checksum = checksum(ret->bytes, ret->length);
}

/* The header with its description; the caller frees *ret. */
static int make_header(const LayerDescription *d, unsigned char **ret, size_t *ret_length, Reason *reterr) {
        CLEANUP(freep) char *text = NULL;
        json_t *object = json_pack("{s:s,s:s,s:s,s:s,s:s}", "repository", d->repository, "vm_uuid", d->vm_uuid, "vm", d->vm,
                                   "disk", d->disk, "capture", d->capture);
        unsigned char *header;
        size_t text_length;

        text = object ? json_dumps(object, JSON_COMPACT) : NULL;
        json_decref(object);
        if (!text)
                return fail(reterr, -EINVAL, "the layer cannot be described: a name is no UTF-8");
        text_length = strlen(text);
        if (text_length > DESCRIPTION_MAX)
                return fail(reterr, -EINVAL, "the layer cannot be described: its names are too long");
        header = calloc(1, HEADER_FIXED_SIZE + text_length + sizeof(uint64_t));
        if (!header)
                return fail_oom(reterr);
        memcpy(header, HEADER_MAGIC, 8);
        store_le32(header + 8, LAYOUT_VERSION);
        store_le32(header + 12, d->codec->id);
        store_le64(header + 32, d->disk_size);
        store_le32(header + 40, d->block_size);
        store_le32(header + 44, (uint32_t) text_length);
        memcpy(header + HEADER_FIXED_SIZE, text, text_length);
        store_le64(header + HEADER_FIXED_SIZE + text_length, checksum(header, HEADER_FIXED_SIZE + text_length));
        *ret = header;
        *ret_length = HEADER_FIXED_SIZE + text_length + sizeof(uint64_t);
        return 0;
}

static void begin_leaf(LayerWriter *writer) {
        writer->leaf = (OpenPage) { .length = LEAF_HEADER_SIZE };
}

int layer_writer_new(ByteSink *sink, const LayerDescription *description, LayerWriter **ret, Reason *reterr) {
        CLEANUP(freep) unsigned char *header = NULL;
        LayerWriter *writer;
        size_t length = 0;
        int rc;

        if (!is_power_of_2(description->block_size) || description->block_size < NATIVE_BLOCK_SIZE_MIN ||
            description->block_size > NATIVE_BLOCK_SIZE_MAX)
                return fail(reterr, -EINVAL,
                            "a block size of %" PRIu32 " bytes is not possible: it is a power of 2 from %u to %u",
                            description->block_size, NATIVE_BLOCK_SIZE_MIN, NATIVE_BLOCK_SIZE_MAX);
        if (description->disk_size > INT64_MAX)
                return fail(reterr, -EINVAL, "a disk of %" PRIu64 " bytes is too large", description->disk_size);
        rc = make_header(description, &header, &length, reterr);
        if (rc < 0)
                return rc;
        rc = byte_sink_append(sink, header, length, reterr);
        if (rc < 0)
                return rc;
        writer = calloc(1, sizeof *writer);
        if (!writer)
                return fail_oom(reterr);
        writer->sink = sink;
        writer->codec = description->codec;
        writer->disk_size = description->disk_size;
        writer->block_size = description->block_size;
        writer->block_count = divide_up(description->disk_size, description->block_size);
        writer->header_checksum = load_le64(header + length - sizeof(uint64_t));
        begin_leaf(writer);
        *ret = writer;
        return 0;
}

LayerWriter *layer_writer_free(LayerWriter *writer) {
        if (writer) {
                byte_sink_free(writer->sink);
                for (size_t i = 0; i < LEVELS_MAX; i++)
                        free(writer->nodes[i]);
        }
        free(writer);
        return NULL;
}

static int write_page(LayerWriter *writer, OpenPage *page, const char *magic, uint32_t level, PageEntry *ret,
                      Reason *reterr) {
        memcpy(page->bytes, magic, 4);
        store_le32(page->bytes + 4, level);
        store_le32(page->bytes + 8, page->count);
        store_le32(page->bytes + 12, 0);
        *ret = (PageEntry) {
                .first = page->first,
                .end = page->end,
                .offset = byte_sink_size(writer->sink),
                .checksum = checksum(page->bytes, page->length),
                .length = (uint32_t) page->length,
                .level = level,
        };
        writer->totals.index_length += page->length;
        return byte_sink_append(writer->sink, page->bytes, page->length, reterr);
}

static int write_node(LayerWriter *writer, uint32_t level, PageEntry *ret, Reason *reterr) {
        OpenPage *node = writer->nodes[level];
        int rc = write_page(writer, node, NODE_MAGIC, level, ret, reterr);

        *node = (OpenPage) { .length = NODE_HEADER_SIZE };
        return rc;
}

/* Tells of a page in the level above it, writing what is full there. */
static int add_entry(LayerWriter *writer, PageEntry entry, Reason *reterr) {
        uint32_t level = entry.level + 1;
        OpenPage *node;
        unsigned char *at;

        assert(level < LEVELS_MAX);
        node = writer->nodes[level];
        if (!node) {
                node = writer->nodes[level] = calloc(1, sizeof *node);
                if (!node)
                        return fail_oom(reterr);
                node->length = NODE_HEADER_SIZE;
        }
        if (node->length + NODE_ENTRY_SIZE > PAGE_MAX) {
                PageEntry full;
                int rc = write_node(writer, level, &full, reterr);

                if (rc >= 0)
                        rc = add_entry(writer, full, reterr);
                if (rc < 0)
                        return rc;
        }
        at = node->bytes + node->length;
        store_le64(at, entry.first);
        store_le64(at + 8, entry.end);
        store_le64(at + 16, entry.offset);
        store_le64(at + 24, entry.checksum);
        store_le32(at + 32, entry.length);
        store_le32(at + 36, 0);
        if (node->count++ == 0)
                node->first = entry.first;
        node->end = entry.end;
        node->length += NODE_ENTRY_SIZE;
        return 0;
}

static int write_leaf(LayerWriter *writer, PageEntry *ret, Reason *reterr) {
        OpenPage *leaf = &writer->leaf;
        int rc;

        store_le64(leaf->bytes + 16, leaf->first);
        if (load_le64(leaf->bytes + 24) == 0) /* no block stands at 0: the header does */
                store_le64(leaf->bytes + 24, byte_sink_size(writer->sink));
        rc = write_page(writer, leaf, LEAF_MAGIC, 0, ret, reterr);
        begin_leaf(writer);
        return rc;
}

/* Makes room in the leaf for one more record, or for its continuation where one of this kind ends at the block. */
static int open_record(LayerWriter *writer, uint64_t block, uint64_t kind, size_t payload, Reason *reterr) {
        OpenPage *leaf = &writer->leaf;
        uint64_t head = leaf->count > 0 ? load_le64(leaf->bytes + writer->record) : 0;
        bool continues =
                leaf->count > 0 && leaf->end == block && (head & 3) == kind && (uint32_t) head >> 2 < RECORD_COUNT_MAX;
        uint64_t gap = leaf->count > 0 ? block - leaf->end : 0;

        if (leaf->length + (continues ? 0 : RECORD_SIZE) + payload > PAGE_MAX || gap > UINT32_MAX) {
                PageEntry full;
                int rc = write_leaf(writer, &full, reterr);

                if (rc >= 0)
                        rc = add_entry(writer, full, reterr);
                if (rc < 0)
                        return rc;
                continues = false;
                gap = 0;
        }
        if (continues)
                return 0;
        if (leaf->count++ == 0)
                leaf->first = leaf->end = block;
        writer->record = leaf->length;
        store_le64(leaf->bytes + writer->record, gap << 32 | kind);
        leaf->length += RECORD_SIZE;
        return 0;
}

/* Counts the blocks in, which the open record tells of from now on. */
static void extend_record(LayerWriter *writer, uint64_t block, uint64_t count) {
        unsigned char *record = writer->leaf.bytes + writer->record;

        store_le64(record, load_le64(record) + (count << 2));
        writer->leaf.end = writer->next_block = block + count;
}

static uint32_t block_length(const LayerWriter *writer, uint64_t block) {
        return (uint32_t) min_u64(writer->block_size, writer->disk_size - block * writer->block_size);
}

/* In a record of its kind, or several where one cannot count as far. */
static int add_without_bytes(LayerWriter *writer, uint64_t block, uint64_t count, uint64_t kind, Reason *reterr) {
        while (count > 0) {
                const unsigned char *record;
                uint64_t part;
                int rc = open_record(writer, block, kind, 0, reterr);

                if (rc < 0)
                        return rc;
                record = writer->leaf.bytes + writer->record;
                part = min_u64(count, RECORD_COUNT_MAX - ((uint32_t) load_le64(record) >> 2));
                extend_record(writer, block, part);
                block += part;
                count -= part;
        }
        return 0;
}

static int add_block(LayerWriter *writer, uint64_t block, const PackedBlock *packed, Reason *reterr) {
        OpenPage *leaf = &writer->leaf;
        int rc;

        if (packed->length == 0) {
                rc = add_without_bytes(writer, block, 1, RECORD_ZERO, reterr);
                if (rc >= 0)
                        writer->totals.zero += block_length(writer, block);
                return rc;
        }
        rc = open_record(writer, block, RECORD_DATA, RECORD_BLOCK_SIZE, reterr);
        if (rc < 0)
                return rc;
        if (load_le64(leaf->bytes + 24) == 0)
                store_le64(leaf->bytes + 24, byte_sink_size(writer->sink));
        store_le32(leaf->bytes + leaf->length, packed->length);
        store_le64(leaf->bytes + leaf->length + 4, packed->checksum);
        leaf->length += RECORD_BLOCK_SIZE;
        extend_record(writer, block, 1);
        writer->totals.blocks++;
        writer->totals.data += block_length(writer, block);
        return byte_sink_append(writer->sink, packed->bytes, packed->length, reterr);
}

/* That a range begins at a block behind all before, and ends at one or at the disk's end. */
static int check_range(const LayerWriter *writer, uint64_t start, uint64_t length, Reason *reterr) {
        if (writer->broken)
                return fail(reterr, -EINVAL, "%s can take nothing more", writer->sink->name);
        if (start % writer->block_size || start / writer->block_size < writer->next_block || start > writer->disk_size ||
            length > writer->disk_size - start || (length % writer->block_size && start + length != writer->disk_size))
                return fail(reterr, -EINVAL, "%" PRIu64 " bytes at %" PRIu64 " are not in order, or no whole blocks", length,
                            start);
        return 0;
}

int layer_writer_add_extent(LayerWriter *writer, uint64_t start, uint64_t length, ExtentState state, Reason *reterr) {
        int rc = check_range(writer, start, length, reterr);

        assert(state == EXTENT_ZERO || state == EXTENT_UNREADABLE);
        if (rc < 0)
                return rc;
        rc = add_without_bytes(writer, start / writer->block_size, divide_up(length, writer->block_size),
                               state == EXTENT_ZERO ? RECORD_ZERO : RECORD_UNREADABLE, reterr);
        if (rc >= 0)
                *(state == EXTENT_ZERO ? &writer->totals.zero : &writer->totals.unreadable) += length;
        writer->broken = rc < 0;
        return rc;
}

int layer_writer_add_blocks(LayerWriter *writer, uint64_t start, const PackedBlock *blocks, size_t count, Reason *reterr) {
        uint64_t block = start / writer->block_size;
        int rc;

        if (count == 0)
                return 0;
        if (block >= writer->block_count || count > writer->block_count - block)
                return fail(reterr, -EINVAL, "%zu blocks from block %" PRIu64 " on are more than the disk has", count,
                            block);
        rc = check_range(writer, start, min_u64((uint64_t) count * writer->block_size, writer->disk_size - start), reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < count; i++)
                if (blocks[i].length > block_length(writer, block + i))
                        return fail(reterr, -EINVAL, "block %" PRIu64 " is longer than it can be", block + i);
        for (size_t i = 0; rc >= 0 && i < count; i++)
                rc = add_block(writer, block + i, &blocks[i], reterr);
        writer->broken = rc < 0;
        return rc;
}

/* Writes what is open on all levels; the last page written is the root. */
static int write_tree(LayerWriter *writer, PageEntry *ret, Reason *reterr) {
        int rc = write_leaf(writer, ret, reterr);

        for (uint32_t level = 1; rc >= 0 && level < LEVELS_MAX && writer->nodes[level]; level++) {
                rc = add_entry(writer, *ret, reterr);
                if (rc >= 0)
                        rc = write_node(writer, level, ret, reterr);
        }
        return rc;
}

int layer_writer_finish(LayerWriter *writer, LayerTotals *ret, Reason *reterr) {
        unsigned char footer[FOOTER_SIZE] = { 0 };
        PageEntry root;
        int rc;

        if (writer->broken)
                return fail(reterr, -EINVAL, "%s is not whole and cannot be finished", writer->sink->name);
        writer->broken = true;
        rc = write_tree(writer, &root, reterr);
        if (rc < 0)
                return rc;
        memcpy(footer, FOOTER_MAGIC, 8);
        store_le64(footer + 8, writer->header_checksum);
        store_le64(footer + 16, root.first);
        store_le64(footer + 24, root.end);
        store_le64(footer + 32, root.offset);
        store_le64(footer + 40, root.checksum);
        store_le32(footer + 48, root.length);
        store_le32(footer + 52, root.level);
        store_le64(footer + 56, writer->totals.blocks);
        store_le64(footer + 64, writer->totals.data);
        store_le64(footer + 72, writer->totals.zero);
        store_le64(footer + 80, writer->totals.unreadable);
        store_le64(footer + 88, writer->totals.index_length);
        writer->totals.seal = checksum(footer, FOOTER_SIZE - sizeof(uint64_t));
        store_le64(footer + 96, writer->totals.seal);
        rc = byte_sink_append(writer->sink, footer, sizeof footer, reterr);
        if (rc >= 0)
                rc = byte_sink_commit(writer->sink, reterr);
        if (rc < 0)
                return rc;
        writer->totals.length = byte_sink_size(writer->sink);
        *ret = writer->totals;
        return 0;
}
