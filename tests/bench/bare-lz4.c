#include "bare-lz4.h"

#include <errno.h>
#include <fcntl.h>
#include <lz4.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK (64u << 10)

typedef struct Block {
        uint64_t offset; /* in the store */
        uint32_t length; /* 0: zeroes; BLOCK: as it is */
        uint32_t unused;
} Block;

static struct {
        int fd;
        uint64_t size; /* of the raw file; the store has it behind the table, which is at its end */
        Block *blocks;
} store;

static uint64_t min(uint64_t a, uint64_t b) {
        return a < b ? a : b;
}

static uint64_t block_count(uint64_t size) {
        return (size + BLOCK - 1) / BLOCK;
}

static int read_all(int fd, void *buffer, size_t length, uint64_t offset) {
        ssize_t got = pread(fd, buffer, length, (off_t) offset);

        return got == (ssize_t) length ? 0 : got < 0 ? -errno : -EIO;
}

static int write_all(int fd, const void *buffer, size_t length) {
        const char *from = buffer;

        while (length > 0) {
                ssize_t done = write(fd, from, length);

                if (done < 0)
                        return -errno;
                from += done;
                length -= (size_t) done;
        }
        return 0;
}

static bool is_zero(const char *bytes, size_t length) {
        return bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0;
}

static int pack_blocks(int from, int to, uint64_t size, Block *blocks) {
        static char raw[BLOCK], packed[LZ4_COMPRESSBOUND(BLOCK)];
        uint64_t at = 0;
        int rc = 0;

        for (uint64_t i = 0; rc == 0 && i < block_count(size); i++) {
                size_t length = min(BLOCK, size - i * BLOCK);
                int shorter;

                rc = read_all(from, raw, length, i * BLOCK);
                if (rc < 0 || is_zero(raw, length))
                        continue;
                shorter = LZ4_compress_default(raw, packed, (int) length, BLOCK - 1);
                blocks[i] = (Block) { .offset = at, .length = shorter > 0 ? (uint32_t) shorter : (uint32_t) length };
                rc = write_all(to, shorter > 0 ? packed : raw, blocks[i].length);
                at += blocks[i].length;
        }
        return rc;
}

int bare_lz4_pack(const char *raw, const char *path) {
        int from = open(raw, O_RDONLY | O_CLOEXEC), to = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        Block *blocks = NULL;
        struct stat st;
        int rc = -errno;

        if (from >= 0 && to >= 0 && fstat(from, &st) == 0) {
                uint64_t size = (uint64_t) st.st_size;

                blocks = calloc(block_count(size), sizeof *blocks);
                rc = blocks ? pack_blocks(from, to, size, blocks) : -ENOMEM;
                if (rc == 0)
                        rc = write_all(to, blocks, block_count(size) * sizeof *blocks);
                if (rc == 0)
                        rc = write_all(to, &size, sizeof size);
        }
        free(blocks);
        if (from >= 0)
                close(from);
        if (to >= 0 && close(to) < 0 && rc == 0)
                rc = -errno;
        return rc;
}

int bare_lz4_open(const char *path) {
        uint64_t end, table;
        struct stat st;
        int rc;

        store.fd = open(path, O_RDONLY | O_CLOEXEC);
        if (store.fd < 0 || fstat(store.fd, &st) < 0)
                return -errno;
        if (st.st_size < (off_t) sizeof store.size)
                return -EBADMSG;
        end = (uint64_t) st.st_size - sizeof store.size;
        rc = read_all(store.fd, &store.size, sizeof store.size, end);
        table = block_count(store.size) * sizeof *store.blocks;
        if (rc < 0 || table > end)
                return rc < 0 ? rc : -EBADMSG;
        store.blocks = malloc(table);
        return store.blocks ? read_all(store.fd, store.blocks, table, end - table) : -ENOMEM;
}

uint64_t bare_lz4_size(void) {
        return store.size;
}

static int read_block(const Block *block, char *to, size_t skip, size_t length) {
        static _Thread_local char packed[BLOCK], raw[BLOCK];
        char *whole = skip == 0 ? to : raw;
        int rc;

        if (block->length == 0) {
                memset(to, 0, length);
                return 0;
        }
        rc = read_all(store.fd, packed, block->length, block->offset);
        if (rc < 0)
                return rc;
        if (block->length == BLOCK) {
                memcpy(to, packed + skip, length);
                return 0;
        }
        if (LZ4_decompress_safe_partial(packed, whole, (int) block->length, (int) (skip + length), (int) (skip + length)) !=
            (int) (skip + length))
                return -EIO;
        if (skip > 0)
                memcpy(to, raw + skip, length);
        return 0;
}

ssize_t bare_lz4_read(void *buffer, size_t length, uint64_t offset) {
        uint64_t end = min(offset + length, store.size), at = offset;

        while (at < end) {
                size_t skip = at % BLOCK, part = min(BLOCK - skip, end - at);
                int rc = read_block(&store.blocks[at / BLOCK], (char *) buffer + (at - offset), skip, part);

                if (rc < 0)
                        return rc;
                at += part;
        }
        return at > offset ? (ssize_t) (at - offset) : 0;
}

off_t bare_lz4_seek(off_t offset, int whence) {
        uint64_t block = (uint64_t) offset / BLOCK, first = block;

        while (block < block_count(store.size) && (store.blocks[block].length == 0) != (whence == SEEK_HOLE))
                block++;
        if (block == block_count(store.size))
                return whence == SEEK_HOLE ? (off_t) store.size : -ENXIO;
        return block == first ? offset : (off_t) (block * BLOCK);
}
