/* tests/bench/make-chain.c - the chain that the bench reads: as points of a repository, and, with the same content, as
 * qcow2 overlays.
 *
 *     make-chain RAW REPO VM LAYERS CHANGES UNIT [QCOW2-DIR]
 *
 * RAW is the disk at the full point; it must be there as QCOW2-DIR/VM-0000.qcow2, too, which this program does not make.
 * The points' layers compress UNIT bytes together: a block of 64 KiB, or a part of one.
 * Each of the LAYERS - 1 points after it overwrites CHANGES blocks, scattered over those with data, with what other
 * blocks of RAW hold, and replaces a few files in a range that was free. The same arguments give the same bytes.
 * Overlays have their data in the order of the disk, which is the best order for whoever reads them. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "codec/checksum.h"
#include "formats/native/layer-writer.h"
#include "repository/manifest.h"
#include "repository/repository.h"
#include "repository/vm.h"
#include "util/bytes.h"
#include "util/directory.h"
#include "util/io.h"

#define BLOCK NATIVE_BLOCK_SIZE_DEFAULT /* what changes at once; a cluster of the overlays */
#define FIRST_MOMENT 1795136523         /* 2026-11-20T01:02:03Z */
#define FILES 12                        /* in each incremental point */
#define FILE_BLOCKS 8                   /* each at most */
#define FILES_SPAN 1024                 /* blocks of the range in which they are replaced by turns */
#define L2_ENTRIES (BLOCK / 8)
#define COPIED (UINT64_C(1) << 63)      /* qcow2: the only reference */
#define UNCHANGED UINT64_MAX

typedef struct Work {
        int raw;
        uint64_t size, count; /* bytes and blocks of the disk */
        uint64_t *data;       /* blocks of RAW that are not zero */
        uint64_t data_count;
        uint64_t *source;     /* for each block: the block of RAW that it becomes in this layer, or UNCHANGED */
        uint64_t files_start, files_next; /* the range of the files; where in it the next one goes */
        unsigned char *block, *scratch;
        const char *vm_name, *directory;
        Vm *vm;
        unsigned changes;
        uint32_t unit;        /* bytes: a block of the layers */
} Work;

static uint64_t random_state = 1;

static uint64_t pick(uint64_t below) {
        /* xorshift64* */
        random_state ^= random_state >> 12;
        random_state ^= random_state << 25;
        random_state ^= random_state >> 27;
        return random_state * 0x2545f4914f6cdd1dull % below;
}

static void die(const char *what, int rc) {
        fprintf(stderr, "make-chain: %s: %s\n", what, strerror(-rc));
        exit(1);
}

static void check(int rc, const Reason *reason) {
        if (rc >= 0)
                return;
        fprintf(stderr, "make-chain: %s\n", reason->text);
        exit(1);
}

static void *get_memory(size_t size) {
        void *memory = calloc(1, size + 1);

        if (!memory)
                die("memory", -ENOMEM);
        return memory;
}

static char *format(const char *text, ...) __attribute__((format(printf, 1, 2)));
static char *format(const char *text, ...) {
        va_list args;
        char *made;

        va_start(args, text);
        if (vasprintf(&made, text, args) < 0)
                die("memory", -ENOMEM);
        va_end(args);
        return made;
}

static void read_block(Work *work, uint64_t block) {
        uint64_t start = block * BLOCK;
        int rc = pread_whole(work->raw, work->block, min_u64(BLOCK, work->size - start), start);

        if (rc < 0)
                die("cannot read the raw disk", rc);
}

/* The first layer: every block is its own source. The longest range without data takes the files. */
static void survey(Work *work) {
        uint64_t free_run = 0, longest = 0;

        for (uint64_t block = 0; block < work->count; block++) {
                read_block(work, block);
                work->source[block] = block;
                if (!bytes_are_zero(work->block, min_u64(BLOCK, work->size - block * BLOCK))) {
                        work->data[work->data_count++] = block;
                        free_run = 0;
                } else if (++free_run > longest) {
                        longest = free_run;
                        work->files_start = block + 1 - free_run;
                }
        }
        if (longest < FILES_SPAN || work->data_count < work->changes)
                die("the raw disk has too little room, or too little data", -ENOSPC);
}

static void change(Work *work) {
        for (uint64_t block = 0; block < work->count; block++)
                work->source[block] = UNCHANGED;
        for (unsigned i = 0; i < work->changes;) {
                uint64_t block = work->data[pick(work->data_count)];

                if (work->source[block] == UNCHANGED) {
                        work->source[block] = work->data[pick(work->data_count)];
                        i++;
                }
        }
        for (unsigned i = 0; i < FILES; i++) {
                uint64_t from = pick(work->data_count - FILE_BLOCKS), length = 1 + pick(FILE_BLOCKS);

                for (uint64_t j = 0; j < length; j++)
                        work->source[work->files_start + work->files_next++ % FILES_SPAN] = work->data[from + j];
        }
}

static void write_unit(Work *work, LayerWriter *writer, uint64_t start, const unsigned char *bytes, uint32_t length) {
        Reason reason = REASON_INIT;
        PackedBlock packed;

        packed_block_pack(codec_by_name("lz4"), 0, bytes, length, work->scratch, &packed);
        if (packed.length == 0)
                check(layer_writer_add_extent(writer, start, length, EXTENT_ZERO, &reason), &reason);
        else
                check(layer_writer_add_blocks(writer, start, &packed, 1, &reason), &reason);
}

static void write_layer(Work *work, const char *capture, const char *path, ManifestDisk *disk, LayerTotals *ret) {
        LayerDescription description = {
                .repository = repository_uuid(vm_repository(work->vm)), .vm_uuid = vm_uuid(work->vm),
                .vm = vm_name(work->vm), .disk = disk->name, .capture = capture,
                .disk_size = work->size, .block_size = work->unit, .codec = codec_by_name("lz4"),
        };
        CLEANUP(layer_writer_freep) LayerWriter *writer = NULL;
        Reason reason = REASON_INIT;
        ByteSink *sink;

        check(file_sink_create(vm_fd(work->vm), path, &sink, &reason), &reason);
        check(layer_writer_new(sink, &description, &writer, &reason), &reason);
        for (uint64_t block = 0; block < work->count; block++) {
                uint64_t start = block * BLOCK;

                if (work->source[block] == UNCHANGED)
                        continue;
                read_block(work, work->source[block]);
                for (uint32_t at = 0; at < BLOCK; at += work->unit)
                        write_unit(work, writer, start + at, work->block + at, work->unit);
        }
        check(layer_writer_finish(writer, ret, &reason), &reason);
}

static void make_point(Work *work, unsigned number, char name[POINT_NAME_MAX]) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        CLEANUP(freep) char *directory = NULL;
        CLEANUP(freep) char *path = NULL;
        Reason reason = REASON_INIT;
        LayerTotals totals;
        ManifestDisk *disk;

        check(manifest_new(&manifest), &reason);
        manifest->time = (struct timespec) { .tv_sec = FIRST_MOMENT + 3600 * (time_t) number };
        if (number > 0)
                manifest->parent = format("%s", name);
        if (point_name_next(manifest->time.tv_sec, name, manifest->name) < 0)
                die("point name", -ERANGE);
        manifest->vm = format("%s", vm_name(work->vm));
        manifest->vm_uuid = format("%s", vm_uuid(work->vm));
        manifest->serial = number + 1;
        manifest->kind = number > 0 ? POINT_INCREMENTAL : POINT_FULL;
        manifest->capture = format("%s.%08x", manifest->name, number);
        directory = format("data/%s", manifest->capture);
        check(make_directory(vm_fd(work->vm), directory, &reason), &reason);

        disk = manifest->disks = get_memory(sizeof *manifest->disks);
        manifest->disk_count = 1;
        disk->name = format("vda");
        disk->size = work->size;
        disk->kind = manifest->kind;
        disk->allocated = (work->data_count + min_u64(work->files_next, FILES_SPAN)) * BLOCK;
        if (strings_add(&disk->images, "made by make-chain") < 0)
                die("memory", -ENOMEM);
        disk->layers = get_memory(sizeof *disk->layers);
        disk->layer_count = 1;
        disk->layers->format = format("native");
        disk->layers->file = format("vda.layer");
        path = format("%s/vda.layer", directory);
        write_layer(work, manifest->capture, path, disk, &totals);
        disk->layers->length = totals.length;
        disk->layers->seal = totals.seal;
        check(manifest_commit(work->vm, manifest, &reason), &reason);
        memcpy(name, manifest->name, POINT_NAME_MAX);
}

static void put(FILE *file, const void *bytes, size_t length) {
        if (fwrite(bytes, 1, length, file) != length)
                die("cannot write the overlay", -errno);
}

static void put_cluster(FILE *file, void *cluster) {
        put(file, cluster, BLOCK);
        memset(cluster, 0, BLOCK);
}

/* Version 3 with 64 KiB clusters: header, refcount table, one refcount block, L1 table, L2 tables, data. */
static void put_header(FILE *file, const Work *work, const char *backing, uint64_t l1_size, unsigned char *cluster) {
        memcpy(cluster, "QFI\xfb", 4);
        store_be32(cluster + 4, 3);
        store_be64(cluster + 8, 128); /* the backing file's name, behind the extension that tells its format */
        store_be32(cluster + 16, (uint32_t) strlen(backing));
        store_be32(cluster + 20, 16);
        store_be64(cluster + 24, work->size);
        store_be32(cluster + 36, (uint32_t) l1_size);
        store_be64(cluster + 40, 3 * BLOCK);
        store_be64(cluster + 48, BLOCK);
        store_be32(cluster + 56, 1);
        store_be32(cluster + 96, 4);
        store_be32(cluster + 100, 104);
        store_be32(cluster + 104, 0xe2792aca);
        store_be32(cluster + 108, 5);
        memcpy(cluster + 112, "qcow2", 5);
        memcpy(cluster + 128, backing, strlen(backing));
        put_cluster(file, cluster);
}

static void write_overlay(Work *work, unsigned number) {
        CLEANUP(freep) char *path = format("%s/%s-%04u.qcow2", work->directory, work->vm_name, number);
        CLEANUP(freep) char *backing = format("%s-%04u.qcow2", work->vm_name, number - 1);
        CLEANUP(freep) unsigned char *cluster = get_memory(BLOCK);
        CLEANUP(close_file) FILE *file = fopen(path, "wbe");
        uint64_t l1_size = divide_up(work->count, L2_ENTRIES), tables = 0, changed = 0, at;
        CLEANUP(freep) bool *wanted = get_memory(l1_size * sizeof *wanted);

        if (!file)
                die(path, -errno);
        for (uint64_t block = 0; block < work->count; block++)
                if (work->source[block] != UNCHANGED) {
                        tables += !wanted[block / L2_ENTRIES];
                        wanted[block / L2_ENTRIES] = true;
                        changed++;
                }
        if (l1_size > L2_ENTRIES || 4 + tables + changed > BLOCK / 2)
                die("the overlay is too large", -EFBIG);
        put_header(file, work, backing, l1_size, cluster);
        store_be64(cluster, 2 * BLOCK);
        put_cluster(file, cluster);
        for (uint64_t i = 0; i < 4 + tables + changed; i++)
                cluster[2 * i + 1] = 1;
        put_cluster(file, cluster);
        at = 4;
        for (uint64_t i = 0; i < l1_size; i++)
                if (wanted[i])
                        store_be64(cluster + 8 * i, COPIED | (at++ * BLOCK));
        put_cluster(file, cluster);
        for (uint64_t i = 0; i < l1_size; i++) {
                if (!wanted[i])
                        continue;
                for (uint64_t j = 0; j < L2_ENTRIES && i * L2_ENTRIES + j < work->count; j++)
                        if (work->source[i * L2_ENTRIES + j] != UNCHANGED)
                                store_be64(cluster + 8 * j, COPIED | (at++ * BLOCK));
                put_cluster(file, cluster);
        }
        for (uint64_t block = 0; block < work->count; block++)
                if (work->source[block] != UNCHANGED) {
                        read_block(work, work->source[block]);
                        put(file, work->block, BLOCK);
                }
        if (fflush(file) != 0)
                die(path, -errno);
}

static void open_vm(Work *work, const char *path, Repository **ret) {
        char uuid[40];
        Reason reason = REASON_INIT;

        if (repository_open(path, REPOSITORY_CACHE_DEFAULT, ret, &reason) < 0) {
                check(repository_init(path, &reason), &reason);
                check(repository_open(path, REPOSITORY_CACHE_DEFAULT, ret, &reason), &reason);
        }
        snprintf(uuid, sizeof uuid, "5eed5eed-0000-4000-8000-%012" PRIx64,
                 checksum(work->vm_name, strlen(work->vm_name)) & 0xffffffffffff);
        check(vm_add(*ret, work->vm_name, uuid, "test:///default", NULL, &reason), &reason);
        check(vm_open(*ret, work->vm_name, &work->vm, &reason), &reason);
}

int main(int argc, char **argv) {
        CLEANUP(repository_freep) Repository *repository = NULL;
        char name[POINT_NAME_MAX] = "";
        unsigned layers;
        struct stat st;
        Work work = { 0 };

        if (argc != 7 && argc != 8) {
                fprintf(stderr, "Usage: make-chain RAW REPO VM LAYERS CHANGES UNIT [QCOW2-DIR]\n");
                return 2;
        }
        work.vm_name = argv[3];
        layers = (unsigned) strtoul(argv[4], NULL, 10);
        work.changes = (unsigned) strtoul(argv[5], NULL, 10);
        work.unit = (uint32_t) strtoul(argv[6], NULL, 10);
        if (!is_power_of_2(work.unit) || work.unit < NATIVE_BLOCK_SIZE_MIN || work.unit > BLOCK)
                die("a block of the layers is 4096 to 65536 bytes, a power of two", -EINVAL);
        work.directory = argv[7];
        work.raw = open(argv[1], O_RDONLY | O_CLOEXEC);
        if (work.raw < 0 || fstat(work.raw, &st) < 0)
                die(argv[1], -errno);
        work.size = (uint64_t) st.st_size;
        if (work.size == 0 || work.size % BLOCK != 0)
                die("the raw disk is not made of whole blocks", -EINVAL);
        work.count = work.size / BLOCK;
        work.data = get_memory(work.count * sizeof *work.data);
        work.source = get_memory(work.count * sizeof *work.source);
        work.block = get_memory(BLOCK);
        work.scratch = get_memory(BLOCK);
        survey(&work);
        open_vm(&work, argv[2], &repository);
        for (unsigned number = 0; number < layers; number++) {
                if (number > 0) {
                        change(&work);
                        if (work.directory)
                                write_overlay(&work, number);
                }
                make_point(&work, number, name);
                printf("%s\n", name);
        }
        vm_free(work.vm);
        free(work.data);
        free(work.source);
        free(work.block);
        free(work.scratch);
        close(work.raw);
        return fflush(stdout) == 0 ? 0 : 1;
}
