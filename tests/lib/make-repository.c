/* tests/lib/make-repository.c - makes a repository of random points, and says what each of their disks must read as.
 *
 *     make-repository [OPTIONS] REPO
 *         --vm NAME         (vm1)                      --seed N          (1)
 *         --points N        (3): a full one, then incremental ones
 *         --disk NAME=SIZE  (vda=4M); again for more   --changes N       changed ranges in each incremental point (8)
 *         --codec NAME      (lz4)                      --block-size SIZE (64K)
 *         --from NAME=FILE  a disk that is this file to begin with
 *         --images DIR      writes DIR/POINT/DISK.raw, what each disk must read as
 *         --images-of N     only of every Nth point and the newest (1: of all)
 *         --source URI      what the VM is registered with (test:///default); "-": it is forgotten at the end
 *         --unreadable      one block of each point is recorded as unreadable; the image has zeroes there
 *
 * It prints the points' names. The same options give the same images. Makes the repository where there is none. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
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
#include "util/file.h"
#include "util/io.h"

#define FIRST_MOMENT 1795136523 /* 2026-11-20T01:02:03Z */
#define DISKS_MAX 32
#define ABSENT 255

typedef struct Disk {
        const char *name;
        const char *from; /* a file that it begins as; NULL: noise and zeroes */
        uint64_t size;
        unsigned char *bytes;   /* what it reads as now */
        unsigned char *states;  /* of each block, at this point */
        unsigned char *changes; /* of each block, in the newest layer: an ExtentState or ABSENT */
} Disk;

typedef struct Settings {
        const char *repository, *vm, *codec, *images, *source;
        unsigned points, changes, images_of;
        uint32_t block_size;
        bool unreadable;
        Disk disks[DISKS_MAX];
        size_t disk_count;
} Settings;

static uint64_t random_state = 1;

static uint64_t random_number(void) {
        /* xorshift64* */
        random_state ^= random_state >> 12;
        random_state ^= random_state << 25;
        random_state ^= random_state >> 27;
        return random_state * 0x2545f4914f6cdd1dull;
}

static uint64_t pick(uint64_t below) {
        return random_number() % below;
}

static void die(const char *what, int rc) {
        fprintf(stderr, "make-repository: %s: %s\n", what, strerrordesc_np(-rc));
        exit(1);
}

static void check(int rc, const Reason *reason) {
        if (rc >= 0)
                return;
        fprintf(stderr, "make-repository: %s\n", reason->text);
        exit(1);
}

static void *get_memory(size_t size) {
        void *memory = calloc(1, size + 1);

        if (!memory)
                die("memory", -ENOMEM);
        return memory;
}

static uint64_t parse_size(const char *text) {
        char *end;
        uint64_t size = strtoull(text, &end, 10);

        if (*end == 'K')
                size <<= 10;
        else if (*end == 'M')
                size <<= 20;
        else if (*end == 'G')
                size <<= 30;
        return size;
}

static uint64_t block_length(const Settings *settings, const Disk *disk, uint64_t block) {
        return min_u64(settings->block_size, disk->size - block * settings->block_size);
}

static uint64_t block_count(const Settings *settings, const Disk *disk) {
        return divide_up(disk->size, settings->block_size);
}

/* Half of it noise and half of it text, so that some blocks shrink and some do not. */
static void fill_block(const Settings *settings, Disk *disk, uint64_t block) {
        unsigned char *bytes = disk->bytes + block * settings->block_size;
        uint64_t length = block_length(settings, disk, block), noise = pick(length + 1);

        for (uint64_t i = 0; i < noise; i++)
                bytes[i] = (unsigned char) random_number();
        for (uint64_t i = noise; i < length; i++)
                bytes[i] = (unsigned char) ('a' + (i + block) % 23);
        bytes[0] = 1; /* never all zeroes: that would be another state */
        disk->states[block] = disk->changes[block] = EXTENT_DATA;
}

static void clear_block(const Settings *settings, Disk *disk, uint64_t block, ExtentState state) {
        memset(disk->bytes + block * settings->block_size, 0, block_length(settings, disk, block));
        disk->states[block] = disk->changes[block] = (unsigned char) state;
}

static void read_from(const Settings *settings, Disk *disk) {
        CLEANUP(close_fd) int fd = open(disk->from, O_RDONLY | O_CLOEXEC);
        int rc = fd < 0 ? -errno : pread_whole(fd, disk->bytes, disk->size, 0);

        if (rc < 0)
                die(disk->from, rc);
        for (uint64_t block = 0; block < block_count(settings, disk); block++) {
                bool zero = bytes_are_zero(disk->bytes + block * settings->block_size, block_length(settings, disk, block));

                disk->states[block] = disk->changes[block] = zero ? EXTENT_ZERO : EXTENT_DATA;
        }
}

/* Runs of data and of zeroes over all of it, or over some ranges. */
static void change(const Settings *settings, Disk *disk, bool full) {
        uint64_t count = block_count(settings, disk), block = 0;

        memset(disk->changes, ABSENT, count);
        for (unsigned i = 0; full ? block < count : i < settings->changes && count > 0; i++) {
                uint64_t run = 1 + pick(full ? 20 : 4);
                bool data = pick(3) > 0;

                if (!full)
                        block = pick(count);
                for (; run > 0 && block < count; run--, block++)
                        if (data)
                                fill_block(settings, disk, block);
                        else
                                clear_block(settings, disk, block, EXTENT_ZERO);
        }
        if (settings->unreadable && count > 0)
                clear_block(settings, disk, pick(count), EXTENT_UNREADABLE);
}

static void write_layer(const Settings *settings, Vm *vm, const char *path, const char *capture, Disk *disk,
                        LayerTotals *ret) {
        LayerDescription description = {
                .repository = repository_uuid(vm_repository(vm)), .vm_uuid = vm_uuid(vm), .vm = vm_name(vm),
                .disk = disk->name, .capture = capture, .disk_size = disk->size, .block_size = settings->block_size,
                .codec = codec_by_name(settings->codec),
        };
        CLEANUP(freep) void *scratch = get_memory(settings->block_size);
        CLEANUP(layer_writer_freep) LayerWriter *writer = NULL;
        ByteSink *sink;
        Reason reason = REASON_INIT;

        check(file_sink_create(vm_fd(vm), path, &sink, &reason), &reason);
        check(layer_writer_new(sink, &description, &writer, &reason), &reason);
        for (uint64_t block = 0; block < block_count(settings, disk); block++) {
                uint64_t start = block * settings->block_size, length = block_length(settings, disk, block);
                PackedBlock packed;

                switch (disk->changes[block]) {
                case EXTENT_DATA:
                        packed_block_pack(description.codec, 0, disk->bytes + start, (uint32_t) length, scratch, &packed);
                        check(layer_writer_add_blocks(writer, start, &packed, 1, &reason), &reason);
                        break;
                case EXTENT_ZERO:
                case EXTENT_UNREADABLE:
                        check(layer_writer_add_extent(writer, start, length, disk->changes[block], &reason), &reason);
                        break;
                }
        }
        check(layer_writer_finish(writer, ret, &reason), &reason);
}

static char *copy(const char *text) {
        char *copied = strdup(text);

        if (!copied)
                die("memory", -ENOMEM);
        return copied;
}

static void add_disk(const Settings *settings, Vm *vm, Manifest *manifest, Disk *disk) {
        ManifestDisk *entry = &manifest->disks[manifest->disk_count++];
        CLEANUP(freep) char *path = NULL;
        LayerTotals totals;

        if (disk->from && manifest->kind == POINT_FULL)
                read_from(settings, disk);
        else
                change(settings, disk, manifest->kind == POINT_FULL);
        entry->name = copy(disk->name);
        entry->size = disk->size;
        entry->kind = manifest->kind;
        for (uint64_t block = 0; block < block_count(settings, disk); block++)
                if (disk->states[block] != EXTENT_ZERO)
                        entry->allocated += block_length(settings, disk, block);
        if (strings_add(&entry->images, "made by make-repository") < 0)
                die("memory", -ENOMEM);
        entry->layers = get_memory(sizeof *entry->layers);
        entry->layer_count = 1;
        entry->layers->format = copy("native");
        if (asprintf(&entry->layers->file, "%s.layer", disk->name) < 0 ||
            asprintf(&path, "data/%s/%s", manifest->capture, entry->layers->file) < 0)
                die("memory", -ENOMEM);
        write_layer(settings, vm, path, manifest->capture, disk, &totals);
        entry->layers->length = totals.length;
        entry->layers->seal = totals.seal;
}

static void add_file(Vm *vm, Manifest *manifest, const char *name, const char *text) {
        ManifestFile *entry = &manifest->files[manifest->file_count++];
        CLEANUP(freep) char *path = NULL;
        Reason reason = REASON_INIT;

        if (asprintf(&path, "data/%s/%s", manifest->capture, name) < 0)
                die("memory", -ENOMEM);
        check(create_file(vm_fd(vm), path, text, strlen(text), &reason), &reason);
        entry->name = copy(name);
        entry->length = strlen(text);
        entry->seal = checksum(text, strlen(text));
}

static void write_image(const Settings *settings, const char *point, const Disk *disk) {
        CLEANUP(close_fd) int fd = -1;
        CLEANUP(freep) char *path = NULL;

        if (asprintf(&path, "%s/%s", settings->images, point) < 0)
                die("memory", -ENOMEM);
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
                die(path, -errno);
        free(path);
        if (asprintf(&path, "%s/%s/%s.raw", settings->images, point, disk->name) < 0)
                die("memory", -ENOMEM);
        fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0 || ftruncate(fd, (off_t) disk->size) < 0)
                die(path, -errno);
        for (uint64_t block = 0; block < block_count(settings, disk); block++) {
                uint64_t start = block * settings->block_size, length = block_length(settings, disk, block);

                if (disk->states[block] == EXTENT_DATA &&
                    pwrite(fd, disk->bytes + start, length, (off_t) start) != (ssize_t) length)
                        die(path, -EIO);
        }
}

static void make_point(const Settings *settings, Vm *vm, Disk *disks, unsigned number, char name[POINT_NAME_MAX]) {
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        CLEANUP(freep) char *path = NULL;
        Reason reason = REASON_INIT;
        char xml[256];

        check(manifest_new(&manifest), &reason);
        manifest->time = (struct timespec) { FIRST_MOMENT + 3600 * (time_t) number, 123456789 };
        if (number > 0)
                manifest->parent = copy(name);
        if (point_name_next(manifest->time.tv_sec, name, manifest->name) < 0)
                die("point name", -ERANGE);
        manifest->vm = copy(vm_name(vm));
        manifest->vm_uuid = copy(vm_uuid(vm));
        manifest->serial = number + 1;
        manifest->kind = number > 0 ? POINT_INCREMENTAL : POINT_FULL;
        if (asprintf(&manifest->capture, "%s.%08x", manifest->name, number) < 0 ||
            asprintf(&manifest->checkpoint, "virtbackupfs-%u", number) < 0 ||
            asprintf(&path, "data/%s", manifest->capture) < 0)
                die("memory", -ENOMEM);
        check(make_directory(vm_fd(vm), path, &reason), &reason);
        manifest->disks = get_memory(settings->disk_count * sizeof *manifest->disks);
        for (size_t i = 0; i < settings->disk_count; i++)
                add_disk(settings, vm, manifest, &disks[i]);
        manifest->files = get_memory(2 * sizeof *manifest->files);
        snprintf(xml, sizeof xml, "<domain type='test'>\n  <name>%s</name>\n  <title>%u</title>\n</domain>\n", vm_name(vm),
                 number);
        add_file(vm, manifest, "domain.xml", xml);
        add_file(vm, manifest, "nvram", "variables\n");
        check(manifest_commit(vm, manifest, &reason), &reason);

        memcpy(name, manifest->name, POINT_NAME_MAX);
        printf("%s\n", name);
        if (settings->images && (number % settings->images_of == 0 || number + 1 == settings->points))
                for (size_t i = 0; i < settings->disk_count; i++)
                        write_image(settings, name, &disks[i]);
}

static Repository *open_repository(const char *path) {
        Repository *repository;
        Reason reason = REASON_INIT;
        int rc;

        rc = repository_open(path, REPOSITORY_CACHE_DEFAULT, &repository, &reason);
        if (rc < 0) {
                check(repository_init(path, &reason), &reason);
                check(repository_open(path, REPOSITORY_CACHE_DEFAULT, &repository, &reason), &reason);
        }
        return repository;
}

static void make(Settings *settings) {
        CLEANUP(repository_freep) Repository *repository = open_repository(settings->repository);
        CLEANUP(vm_freep) Vm *vm = NULL;
        char name[POINT_NAME_MAX] = "", uuid[40];
        Reason reason = REASON_INIT;
        uint64_t id = checksum(settings->vm, strlen(settings->vm));
        bool forget = strcmp(settings->source, "-") == 0;

        snprintf(uuid, sizeof uuid, "5eed5eed-0000-4000-8000-%012" PRIx64, id & 0xffffffffffff);
        check(vm_add(repository, settings->vm, uuid, forget ? "test:///default" : settings->source, NULL, &reason), &reason);
        check(vm_open(repository, settings->vm, &vm, &reason), &reason);
        for (size_t i = 0; i < settings->disk_count; i++) {
                Disk *disk = &settings->disks[i];

                disk->bytes = get_memory(disk->size);
                disk->states = get_memory(block_count(settings, disk));
                disk->changes = get_memory(block_count(settings, disk));
                memset(disk->states, EXTENT_ZERO, block_count(settings, disk));
        }
        for (unsigned number = 0; number < settings->points; number++)
                make_point(settings, vm, settings->disks, number, name);
        if (forget)
                check(vm_forget(vm, false, &reason), &reason);
        for (size_t i = 0; i < settings->disk_count; i++) {
                free(settings->disks[i].bytes);
                free(settings->disks[i].states);
                free(settings->disks[i].changes);
        }
}

static void take_disk(Settings *settings, char *argument) {
        char *size = strchr(argument, '=');

        if (!size || settings->disk_count == DISKS_MAX)
                die(argument, -EINVAL);
        *size++ = 0;
        settings->disks[settings->disk_count++] = (Disk) { .name = argument, .size = parse_size(size) };
}

static void take_file(Settings *settings, char *argument) {
        char *path = strchr(argument, '=');
        struct stat st;

        if (!path || settings->disk_count == DISKS_MAX)
                die(argument, -EINVAL);
        *path++ = 0;
        if (stat(path, &st) < 0)
                die(path, -errno);
        settings->disks[settings->disk_count++] = (Disk) { .name = argument, .from = path, .size = (uint64_t) st.st_size };
}

int main(int argc, char **argv) {
        static const struct option options[] = {
                { "vm", 1, NULL, 'v' },         { "seed", 1, NULL, 's' },       { "points", 1, NULL, 'p' },
                { "disk", 1, NULL, 'd' },       { "changes", 1, NULL, 'c' },    { "codec", 1, NULL, 'z' },
                { "block-size", 1, NULL, 'b' }, { "images", 1, NULL, 'i' },     { "images-of", 1, NULL, 'n' },
                { "source", 1, NULL, 'u' },     { "unreadable", 0, NULL, 'x' }, { "from", 1, NULL, 'f' },
                { 0 },
        };
        Settings settings = {
                .vm = "vm1", .codec = "lz4", .source = "test:///default",
                .points = 3, .changes = 8, .images_of = 1, .block_size = NATIVE_BLOCK_SIZE_DEFAULT,
        };
        int c;

        while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0)
                switch (c) {
                case 'v':
                        settings.vm = optarg;
                        break;
                case 's':
                        random_state = strtoull(optarg, NULL, 10) * 2 + 1;
                        break;
                case 'p':
                        settings.points = (unsigned) strtoul(optarg, NULL, 10);
                        break;
                case 'd':
                        take_disk(&settings, optarg);
                        break;
                case 'f':
                        take_file(&settings, optarg);
                        break;
                case 'c':
                        settings.changes = (unsigned) strtoul(optarg, NULL, 10);
                        break;
                case 'z':
                        settings.codec = optarg;
                        break;
                case 'b':
                        settings.block_size = (uint32_t) parse_size(optarg);
                        break;
                case 'i':
                        settings.images = optarg;
                        break;
                case 'n':
                        settings.images_of = (unsigned) strtoul(optarg, NULL, 10) ?: 1;
                        break;
                case 'u':
                        settings.source = optarg;
                        break;
                case 'x':
                        settings.unreadable = true;
                        break;
                default:
                        return 2;
                }
        if (optind + 1 != argc || !codec_by_name(settings.codec)) {
                fprintf(stderr, "Usage: make-repository [OPTIONS] REPO\n");
                return 2;
        }
        if (settings.disk_count == 0)
                settings.disks[settings.disk_count++] = (Disk) { .name = "vda", .size = 4 << 20 };
        settings.repository = argv[optind];
        make(&settings);
        return fflush(stdout) == 0 ? 0 : 1;
}
