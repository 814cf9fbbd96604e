/* tests/bench/make-huge.c - a repository with a disk of many terabytes, for huge-disk.
 *
 *     make-huge REPO TERABYTES POINTS CHANGES
 *
 * Every other 32 MiB of the disk is data, the same block again and again: what it takes is the index. Each point after the
 * first has CHANGES blocks, scattered. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/byte-store.h"
#include "points.h"
#include "repository/repository.h"

#define BLOCK NATIVE_BLOCK_SIZE_DEFAULT
#define STRETCH (32ull << 20) /* bytes of data, and as many without */

static unsigned char raw[BLOCK], scratch[BLOCK];
static PackedBlock blocks[STRETCH / BLOCK];

/* One LZ4 block of this is 300 bytes; zstd has a tenth of that, and a disk of 16 TiB has 134 million. */
static void pack(const Codec *codec) {
        memset(raw, 0x5a, sizeof raw);
        packed_block_pack(codec, 0, raw, BLOCK, scratch, &blocks[0]);
        for (size_t i = 1; i < sizeof blocks / sizeof *blocks; i++)
                blocks[i] = blocks[0];
}

static LayerTotals write_full(Vm *vm, uint64_t size, const Codec *codec) {
        CLEANUP(layer_writer_freep) LayerWriter *writer = make_layer(vm, 0, size, codec);
        Reason reason = REASON_INIT;
        LayerTotals totals;

        for (uint64_t at = 0; at < size; at += 2 * STRETCH) {
                points_check(layer_writer_add_blocks(writer, at, blocks, STRETCH / BLOCK, &reason), &reason);
                points_check(layer_writer_add_extent(writer, at + STRETCH, STRETCH, EXTENT_ZERO, &reason), &reason);
        }
        points_check(layer_writer_finish(writer, &totals, &reason), &reason);
        return totals;
}

static LayerTotals write_changes(Vm *vm, unsigned number, uint64_t size, unsigned changes, const Codec *codec) {
        CLEANUP(layer_writer_freep) LayerWriter *writer = make_layer(vm, number, size, codec);
        uint64_t step = size / BLOCK / changes, random = number;
        Reason reason = REASON_INIT;
        LayerTotals totals;

        for (unsigned i = 0; i < changes; i++) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                points_check(layer_writer_add_blocks(writer, (i * step + (random >> 33) % step) * BLOCK, blocks, 1, &reason),
                             &reason);
        }
        points_check(layer_writer_finish(writer, &totals, &reason), &reason);
        return totals;
}

int main(int argc, char **argv) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        CLEANUP(vm_freep) Vm *vm = NULL;
        char name[POINT_NAME_MAX] = "";
        Reason reason = REASON_INIT;
        const Codec *codec = codec_by_name("zstd");
        uint64_t size;
        unsigned points, changes;

        if (argc != 5) {
                fputs("usage: make-huge REPO TERABYTES POINTS CHANGES\n", stderr);
                return 2;
        }
        size = strtoull(argv[2], NULL, 10) << 40;
        points = (unsigned) strtoul(argv[3], NULL, 10);
        changes = (unsigned) strtoul(argv[4], NULL, 10);
        points_check(repository_init(argv[1], &reason), &reason);
        points_check(repository_open(argv[1], REPOSITORY_CACHE_DEFAULT, &repository, &reason), &reason);
        points_check(vm_add(repository, "huge", "00000000-0000-4000-8000-ffffffffffff", "qemu:///system", NULL, &reason),
                     &reason);
        points_check(vm_open(repository, "huge", &vm, &reason), &reason);
        pack(codec);
        for (unsigned i = 0; i < points; i++) {
                LayerTotals totals = i == 0 ? write_full(vm, size, codec) : write_changes(vm, i, size, changes, codec);

                make_point(vm, i, size, &totals, name);
        }
        return 0;
}
