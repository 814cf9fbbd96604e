/* tests/fuzz/fuzz-layer.h - an input as the file of a layer: found, opened, its map walked, parts of it read. */
#pragma once

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats/format.h"
#include "fuzz.h"
#include "util/bytes.h"
#include "util/directory.h"
#include "util/io.h"

#define FUZZ_EXTENTS_MAX (64u << 20) /* bytes of the disk that are walked: what is behind is more of the same */
#define FUZZ_READ_MAX (256u << 10)

/* The input is a file in a directory in memory, which goes with the program. */
static struct {
        char path[32];
        int fd;
} fuzz_place = { "/dev/shm/fuzz-XXXXXX", -1 };

static void fuzz_leave(void) {
        CLEANUP(strings_free) Strings names = { 0 };

        if (list_directory(fuzz_place.fd, ".", &names, NULL) == 0)
                for (size_t i = 0; i < names.count; i++)
                        (void) unlinkat(fuzz_place.fd, names.items[i], 0);
        (void) rmdir(fuzz_place.path);
}

static inline void fuzz_put(const char *name, const uint8_t *data, size_t size) {
        CLEANUP(close_fd) int fd = -1;

        if (fuzz_place.fd < 0) {
                if (!mkdtemp(fuzz_place.path) || atexit(fuzz_leave) != 0)
                        abort();
                fuzz_place.fd = open(fuzz_place.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        }
        fd = openat(fuzz_place.fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || write_whole(fd, data, size) < 0)
                abort();
}

/* Reads a piece at the beginning, one in the middle and the end. */
static inline void fuzz_read(Layer *layer) {
        static unsigned char buffer[FUZZ_READ_MAX];
        uint64_t size = layer_disk_size(layer), offsets[] = { 0, size / 2, size - min_u64(size, 70000) };

        for (size_t i = 0; i < sizeof offsets / sizeof *offsets; i++) {
                size_t length = (size_t) min_u64(size - offsets[i], i == 0 ? FUZZ_READ_MAX : 70000);

                (void) layer_read(layer, buffer, length, offsets[i], NULL);
        }
}

/* What is said to be data or zeroes is read, too. */
static inline void fuzz_walk(Layer *layer) {
        CLEANUP(extent_map_freep) ExtentMap *map = NULL;
        static unsigned char buffer[FUZZ_READ_MAX];

        if (layer_extents(layer, 0, min_u64(layer_disk_size(layer), FUZZ_EXTENTS_MAX), &map, NULL) < 0)
                return;
        for (size_t i = 0; i < extent_map_count(map) && i < 16; i++) {
                const Extent *extent = extent_map_get(map, i);

                if (extent->state == EXTENT_DATA)
                        (void) layer_read(layer, buffer, (size_t) min_u64(extent->length, FUZZ_READ_MAX), extent->start,
                                          NULL);
        }
}

static inline void fuzz_open(LayerStore *store, const LayerLocation *location) {
        CLEANUP(layer_unrefp) Layer *layer = NULL;

        if (layer_open(store, location, &layer, NULL) < 0)
                return;
        fuzz_walk(layer);
        fuzz_read(layer);
}

/* The input as a file of this name in a directory by itself: what the format finds there is opened and read. */
static inline void fuzz_format(const Format *format, const char *name, const uint8_t *data, size_t size) {
        CLEANUP(layer_store_freep) LayerStore *store = NULL;
        CLEANUP(findings_clear) Findings findings = { 0 };
        FoundEntry entry = { .name = (char *) name };
        FoundDirectory directory = { .path = "", .entries = &entry, .entry_count = 1, .findings = &findings };

        fuzz_put(name, data, size);
        if (fstatat(fuzz_place.fd, name, &entry.st, 0) < 0 || layer_store_new(fuzz_place.fd, 1u << 20, &store) < 0)
                abort();
        directory.store = store;
        if (format->find(&directory, NULL) < 0)
                return;
        for (size_t i = 0; i < findings.layer_count && i < 8; i++)
                fuzz_open(store, &findings.layers[i].location);
        for (size_t i = 0; i < findings.kept_count && i < 8; i++)
                fuzz_open(store, &findings.kept[i].location);
}
