/* Chains of qcow2 images in all shapes that QEMU writes, changed at random by qemu-io, read as qemu-img reads them. */
#include "qcow2-images.h"
#include "random.h"
#include "unit.h"

typedef struct Shape {
        uint32_t cluster_bits;
        bool v2, extended, zstd, data_file, data_file_raw;
        const char *preallocation;
        uint64_t size;
        bool *touched; /* clusters that were written to: they cannot be compressed any more */
} Shape;

static void clear_shape(Shape *shape) {
        free(shape->touched);
}

/* Of the options those that go together. */
static Shape random_shape(bool has_backing) {
        Shape shape = { .cluster_bits = 9 + (uint32_t) random_below(13), .preallocation = "off" };

        shape.v2 = random_below(6) == 0;
        shape.extended = !shape.v2 && shape.cluster_bits >= 14 && random_below(2);
        shape.data_file = !shape.v2 && random_below(5) == 0;
        shape.data_file_raw = shape.data_file && !has_backing && random_below(2);
        shape.zstd = !shape.v2 && !shape.data_file && random_below(2);
        if (shape.data_file_raw || random_below(4) == 0)
                shape.preallocation = random_below(2) ? "metadata" : "falloc";
        if (has_backing && !shape.extended)
                shape.preallocation = "off";
        shape.size = (1 + random_below(12u << 11)) * 512;
        shape.touched = calloc((shape.size >> shape.cluster_bits) + 1, sizeof *shape.touched);
        CHECK(shape.touched);
        if (strcmp(shape.preallocation, "off") != 0)
                memset(shape.touched, true, (shape.size >> shape.cluster_bits) + 1);
        return shape;
}

static void create(const TemporaryDirectory *directory, const Shape *shape, const char *name, const char *backing) {
        char options[400], data[100] = "", base[100] = "";

        if (shape->data_file)
                snprintf(data, sizeof data, ",data_file=%s.data,data_file_raw=%s", name,
                         shape->data_file_raw ? "on" : "off");
        if (backing)
                snprintf(base, sizeof base, "-b %s -F qcow2", backing);
        snprintf(options, sizeof options, "compat=%s,cluster_size=%u,preallocation=%s%s%s%s", shape->v2 ? "0.10" : "1.1",
                 1u << shape->cluster_bits, shape->preallocation, shape->extended ? ",extended_l2=on" : "",
                 shape->zstd ? ",compression_type=zstd" : "", data);
        run(directory, "qemu-img create -f qcow2 -o '%s' %s %s %" PRIu64, options, base, name, shape->size);
}

static void random_fill(uint8_t *to, size_t length) {
        for (size_t i = 0; i < length; i++)
                to[i] = (uint8_t) (1 + random_below(255));
}

static void compress_one(FILE *script, Shape *shape) {
        uint64_t cluster = UINT64_C(1) << shape->cluster_bits, start = round_down(random_below(shape->size), cluster);

        if (!shape->data_file && !shape->touched[start / cluster])
                fprintf(script, "write -c -P %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", 1 + random_below(255), start,
                        min_u64(cluster, shape->size - start));
        shape->touched[start / cluster] = true;
}

static void write_one(FILE *script, Shape *shape) {
        uint64_t cluster = UINT64_C(1) << shape->cluster_bits, unit = random_below(3) ? 512 : 4096;
        uint64_t start = round_down(random_below(shape->size), unit);
        uint64_t length = min_u64((1 + random_below(random_below(4) ? 16 : 300)) * 512, shape->size - start);
        uint64_t kind = random_below(10);

        if (kind == 0)
                fprintf(script, "write -z %" PRIu64 " %" PRIu64 "\n", start, length);
        else if (kind == 1)
                fprintf(script, "write -z -u %" PRIu64 " %" PRIu64 "\n", start, length);
        else if (kind == 2)
                fprintf(script, "discard %" PRIu64 " %" PRIu64 "\n", start, length);
        else
                fprintf(script, "write -s noise %" PRIu64 " %" PRIu64 "\n", start, length);
        for (uint64_t at = round_down(start, cluster); at < start + length; at += cluster)
                shape->touched[at / cluster] = true;
}

static void do_in_qemu_io(const TemporaryDirectory *directory, Shape *shape, const char *name, unsigned operations,
                          void (*one)(FILE *script, Shape *shape)) {
        char path[100];
        FILE *script;

        snprintf(path, sizeof path, "%s/script", directory->path);
        script = fopen(path, "w");
        CHECK(script);
        while (operations-- > 0)
                one(script, shape);
        CHECK_INT(fclose(script), 0);
        run(directory, "qemu-io -d unmap -f qcow2 %s <script", name);
}

/* A QEMU that compresses and writes in turn damages the image (7.2). */
static void change(const TemporaryDirectory *directory, Shape *shape, const char *name, unsigned operations) {
        do_in_qemu_io(directory, shape, name, operations / 8, compress_one);
        do_in_qemu_io(directory, shape, name, operations, write_one);
}

/* Where the last cluster was not whole, more of it is the disk's then. */
static void resize(const TemporaryDirectory *directory, Shape *shape, const char *name) {
        uint64_t size = (1 + random_below(12u << 11)) * 512;
        bool *touched = calloc((size >> shape->cluster_bits) + 1, sizeof *touched);

        CHECK(touched);
        memset(touched, true, (size >> shape->cluster_bits) + 1);
        free(shape->touched);
        shape->touched = touched;
        shape->size = size;
        run(directory, "qemu-img resize -q -f qcow2 --shrink %s %" PRIu64, name, size);
}

static void chain_of_any_shapes_reads_as_qemu_reads_it(void) {
        enum { ROUNDS = 8, IMAGES_MAX = 4 };

        for (unsigned round = 0; round < ROUNDS; round++) {
                WITH_DIRECTORY(directory);
                static const char *const all[IMAGES_MAX] = { "3.qcow2", "2.qcow2", "1.qcow2", "0.qcow2" };
                size_t count = 1 + random_below(IMAGES_MAX);
                const char *const *names = all + (IMAGES_MAX - count);
                bool has_snapshot = false;
                uint8_t noise[50021]; /* what is not at its place is not the same */

                random_fill(noise, sizeof noise);
                save_file(&directory, "noise", noise, sizeof noise);
                for (size_t i = count; i-- > 0;) {
                        CLEANUP(clear_shape) Shape shape = random_shape(i + 1 < count);

                        create(&directory, &shape, names[i], i + 1 < count ? names[i + 1] : NULL);
                        change(&directory, &shape, names[i], (unsigned) random_below(150));
                        if (random_below(2) && !shape.v2 && !shape.data_file_raw) {
                                resize(&directory, &shape, names[i]);
                                change(&directory, &shape, names[i], (unsigned) random_below(50));
                        }
                        has_snapshot = i == 0 && !shape.data_file;
                        if (has_snapshot) {
                                run(&directory, "qemu-img snapshot -c first %s", names[0]);
                                change(&directory, &shape, names[0], 100);
                                run(&directory, "qemu-img snapshot -c second %s", names[0]);
                                change(&directory, &shape, names[0], 100);
                        }
                        check_as_qemu_reads(&directory, names + i, count - i, NULL);
                }
                if (has_snapshot) {
                        check_as_qemu_reads(&directory, names, count, "1");
                        check_as_qemu_reads(&directory, names, count, "2");
                }
        }
}

/* Another seed than the usual one may be given, to look further. */
int main(int argc, char **argv) {
        if (argc > 1)
                random_seed(strtoull(argv[1], NULL, 10));
        RUN(chain_of_any_shapes_reads_as_qemu_reads_it);
        return unit_result();
}
