#include <errno.h>
#include <string.h>

#include "codec/checksum.h"
#include "formats/native/layer-private.h"
#include "formats/native/layer-reader.h"
#include "formats/native/layer-writer.h"
#include "formats/native/layout.h"
#include "util/bytes.h"

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

static void native_freep(NativeLayer **native) {
        if (*native)
                native_layer_ops.free(&(*native)->layer);
}

/* Header and footer, and the root into the cache. */
static int load_ends(NativeLayer *native, uint64_t seal, Reason *reterr) {
        uint64_t size = byte_store_size(native->store), header_checksum = 0;
        CLEANUP(freep) unsigned char *tail = NULL;
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
        native_keep_root(native, tail, size - length);
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
        native->layer.ops = &native_layer_ops;
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
