/* tests/unit/qcow2-images.h - qcow2 images that qemu-img and qemu-io make, read as layers and as qemu-img reads them. */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <sys/stat.h>

#include "formats/layer.h"
#include "formats/found.h"
#include "formats/qcow2/member.h"
#include "temporary.h"
#include "util/bytes.h"
#include "util/file.h"
#include "util/io.h"

#define CHAIN_MAX 8

/* Runs a shell command in the directory; what it prints goes to "output" in it. */
__attribute__((format(printf, 2, 3))) static inline void run(const TemporaryDirectory *directory, const char *format, ...) {
        CLEANUP(freep) char *words = NULL;
        CLEANUP(freep) char *command = NULL;
        va_list args;

        va_start(args, format);
        CHECK(vasprintf(&words, format, args) >= 0);
        va_end(args);
        CHECK(asprintf(&command, "cd '%s' && { %s; } >output 2>&1 || { tail -n 20 output; exit 1; } >&2", directory->path,
                       words) >= 0);
        if (system(command) != 0) {
                fprintf(stderr, "failed: %s\n", words);
                exit(1);
        }
}

/* A whole file. The caller frees it. */
static inline uint8_t *load_file(const TemporaryDirectory *directory, const char *name, uint64_t *ret_length) {
        Reason reason = REASON_INIT;
        size_t length = 0;
        char *bytes = NULL;

        if (read_file(directory->fd, name, SIZE_MAX / 2, &bytes, &length, &reason) < 0) {
                fprintf(stderr, "%s\n", reason.text);
                exit(1);
        }
        *ret_length = length;
        return (uint8_t *) bytes;
}

static inline void save_file(const TemporaryDirectory *directory, const char *name, const void *bytes, size_t length) {
        CLEANUP(close_fd) int fd = openat(directory->fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        CHECK(fd >= 0);
        CHECK_INT(write_whole(fd, bytes, length), 0);
}

/* Layers from the newest on. */
typedef struct ImageChain {
        LayerStore *store;
        Layer *layers[CHAIN_MAX];
        size_t count;
} ImageChain;

static inline int open_image(LayerStore *store, const TemporaryDirectory *directory, const char *name, uint64_t parent_size,
                             const char *snapshot, Layer **ret, Reason *reterr) {
        CLEANUP(freep) char *member = NULL;
        struct stat st;

        CHECK_INT(fstatat(directory->fd, name, &st, 0), 0);
        CHECK_INT(qcow2_member_format(&(Qcow2Member) { parent_size, snapshot }, &member), 0);
        return layer_open(store, &(LayerLocation) { "qcow2", name, member, (uint64_t) st.st_size, found_seal(&st) }, ret,
                          reterr);
}

/* names: from the newest to the oldest; snapshot: of the newest, or NULL. */
static inline ImageChain chain_of_images(const TemporaryDirectory *directory, const char *const *names, size_t count,
                                         const char *snapshot) {
        ImageChain chain = { .count = count };
        uint64_t parent_size = 0;
        Reason reason = REASON_INIT;

        CHECK_INT(layer_store_new(directory->fd, 8u << 20, &chain.store), 0);
        for (size_t i = count; i-- > 0;) {
                if (open_image(chain.store, directory, names[i], parent_size, i == 0 ? snapshot : NULL, &chain.layers[i],
                               &reason) < 0) {
                        fprintf(stderr, "%s\n", reason.text);
                        exit(1);
                }
                parent_size = layer_disk_size(chain.layers[i]);
        }
        return chain;
}

static inline void image_chain_clear(ImageChain *chain) {
        for (size_t i = 0; i < chain->count; i++)
                layer_unref(chain->layers[i]);
        layer_store_free(chain->store);
}

/* Reads as chains are flattened: what one layer has not, the next one below is asked for. */
static inline void read_image_chain(const ImageChain *chain, size_t first, uint64_t start, uint64_t length, uint8_t *to) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        Reason reason = REASON_INIT;
        uint64_t at = start, end = start + length;

        CHECK(first < chain->count);
        CHECK_INT(layer_extents(chain->layers[first], start, length, &map, &reason), 0);
        for (size_t i = 0; at < end; i++) {
                const Extent *extent = i < extent_map_count(map) ? extent_map_get(map, i) : NULL;
                uint64_t next = extent ? extent->start : end;

                if (at < next)
                        read_image_chain(chain, first + 1, at, next - at, to + (at - start));
                if (!extent)
                        break;
                if (extent->state == EXTENT_ZERO)
                        memset(to + (extent->start - start), 0, extent->length);
                else if (layer_read(chain->layers[first], to + (extent->start - start), extent->length, extent->start,
                                    &reason) < 0) {
                        fprintf(stderr, "%s\n", reason.text);
                        exit(1);
                }
                at = extent->start + extent->length;
        }
}

/* The whole disk. The caller frees it. */
static inline uint8_t *read_disk(const ImageChain *chain) {
        uint64_t size = layer_disk_size(chain->layers[0]);
        uint8_t *bytes = malloc(size + 1);

        CHECK(bytes);
        memset(bytes, 0xaa, size);
        read_image_chain(chain, 0, 0, size, bytes);
        return bytes;
}

static inline void check_same(const uint8_t *got, const uint8_t *expected, uint64_t length, const char *what) {
        for (uint64_t i = 0; i < length; i++)
                if (got[i] != expected[i]) {
                        fprintf(stderr, "%s: byte %" PRIu64 " is %02x, not %02x\n", what, i, got[i], expected[i]);
                        exit(1);
                }
}

/* That a chain reads as qemu-img reads its newest image (or its snapshot). */
static inline void check_as_qemu_reads(const TemporaryDirectory *directory, const char *const *names, size_t count,
                                       const char *snapshot) {
        CLEANUP(image_chain_clear) ImageChain chain = chain_of_images(directory, names, count, snapshot);
        CLEANUP(freep) uint8_t *expected = NULL;
        CLEANUP(freep) uint8_t *got = read_disk(&chain);
        uint64_t length;

        if (snapshot)
                run(directory, "qemu-img convert -U -l snapshot.id=%s -O raw %s expected.raw", snapshot, names[0]);
        else
                run(directory, "qemu-img convert -U -O raw %s expected.raw", names[0]);
        expected = load_file(directory, "expected.raw", &length);
        CHECK_INT(length, layer_disk_size(chain.layers[0]));
        check_same(got, expected, length, names[0]);
}
