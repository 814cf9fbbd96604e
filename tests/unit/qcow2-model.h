/* tests/unit/qcow2-model.h - a qcow2 image that is being written, beside what its clusters must be. */
#pragma once

#include <sys/stat.h>

#include "formats/qcow2/writer.h"
#include "qcow2-images.h"
#include "random.h"

#define GRAIN QCOW2_WRITER_GRAIN
#define ABSENT UINT64_MAX /* a cluster that was never written */
#define BASE 1            /* the version of all clusters of the backing file */
#define NAME "image.qcow2"

typedef struct Model {
        TemporaryDirectory directory;
        uint64_t size, clusters;
        bool backing;
        Qcow2WriterFile file;
        Qcow2Writer *writer;
        uint64_t version;  /* of the newest write */
        uint64_t *now;     /* of each cluster: its version, 0 for zeroes, ABSENT */
        uint64_t *synced;  /* the same when it was last synced */
        bool *touched;     /* since */
} Model;

/* Other bytes for each cluster and version. */
static inline void fill_cluster(void *to, uint64_t cluster, uint64_t version) {
        uint64_t *words = to;

        for (size_t i = 0; i < GRAIN / 8; i++)
                words[i] = version << 40 ^ cluster << 20 ^ (i + 1) * 0x9e3779b97f4a7c15u;
}

static inline bool is_version(const void *bytes, uint64_t cluster, uint64_t version) {
        CLEANUP(freep) void *wanted = calloc(1, GRAIN);

        CHECK(wanted);
        if (version != 0)
                fill_cluster(wanted, cluster, version);
        return memcmp(bytes, wanted, GRAIN) == 0;
}

/* A raw image of versions; NULL: that of the backing file. */
static inline void save_versions(const Model *model, const char *name, const uint64_t *versions) {
        CLEANUP(close_fd) int fd = openat(model->directory.fd, name, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        unsigned char bytes[GRAIN];
        uint64_t size = round_up(model->size, 512);

        CHECK(fd >= 0);
        CHECK_INT(ftruncate(fd, (off_t) size), 0);
        for (uint64_t cluster = 0; cluster < model->clusters; cluster++) {
                uint64_t start = cluster * GRAIN, version = versions ? versions[cluster] : BASE;

                if (version == ABSENT)
                        version = model->backing ? BASE : 0;
                if (version == 0)
                        continue;
                fill_cluster(bytes, cluster, version);
                CHECK_INT(pwrite_whole(fd, bytes, min_u64(GRAIN, size - start), start), 0);
        }
}

static inline Model model_new(uint64_t size, bool backing) {
        Model model = { .directory = temporary_directory(), .size = size, .backing = backing, .version = BASE };
        char path[100];
        Reason reason = REASON_INIT;

        model.clusters = divide_up(size, GRAIN);
        model.now = malloc((model.clusters + 1) * sizeof *model.now);
        model.synced = malloc((model.clusters + 1) * sizeof *model.synced);
        model.touched = calloc(model.clusters + 1, sizeof *model.touched);
        CHECK(model.now && model.synced && model.touched);
        for (uint64_t cluster = 0; cluster < model.clusters; cluster++)
                model.now[cluster] = model.synced[cluster] = ABSENT;
        if (backing) {
                save_versions(&model, "base.raw", NULL);
                run(&model.directory, "qemu-img convert -f raw -O qcow2 base.raw base.qcow2");
        }
        snprintf(path, sizeof path, "%s/" NAME, model.directory.path);
        model.file = (Qcow2WriterFile) {
                .file = { open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600), -1 },
                .name = NAME,
                .backing = backing ? "base.qcow2" : NULL,
                .disk_size = size,
        };
        CHECK(model.file.file.fd >= 0);
        if (random_below(2)) /* -1 where the file system does not know how */
                model.file.file.direct_fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);
        CHECK_INT(qcow2_writer_new(&model.file, &model.writer, &reason), 0);
        return model;
}

static inline void model_clear(Model *model) {
        qcow2_writer_free(model->writer);
        close(model->file.file.fd);
        close_fd(&model->file.file.direct_fd);
        free(model->now);
        free(model->synced);
        free(model->touched);
        temporary_directory_clear(&model->directory);
}

static inline void *clusters_new(uint64_t count) {
        void *bytes = aligned_alloc(DIRECT_GRAIN, (count + 1) * GRAIN);

        CHECK(bytes);
        return bytes;
}

static inline int model_write(Model *model, uint64_t first, uint64_t count, Reason *reason) {
        CLEANUP(freep) unsigned char *bytes = clusters_new(count);

        model->version++;
        for (uint64_t i = 0; i < count; i++) {
                fill_cluster(bytes + i * GRAIN, first + i, model->version);
                model->now[first + i] = model->version;
                model->touched[first + i] = true;
        }
        return qcow2_writer_write(model->writer, bytes, count * GRAIN, first * GRAIN, reason);
}

static inline int model_zero(Model *model, uint64_t first, uint64_t count, Reason *reason) {
        for (uint64_t i = 0; i < count; i++) {
                model->now[first + i] = 0;
                model->touched[first + i] = true;
        }
        return qcow2_writer_zero(model->writer, count * GRAIN, first * GRAIN, reason);
}

static inline int model_sync(Model *model, Reason *reason) {
        int rc = qcow2_writer_sync(model->writer, reason);

        if (rc == 0) {
                memcpy(model->synced, model->now, model->clusters * sizeof *model->now);
                memset(model->touched, false, model->clusters);
        }
        return rc;
}

/* What is read of a cluster; ABSENT: it is the backing file that has it. */
static inline uint64_t version_shown(const Model *model, uint64_t cluster) {
        return model->now[cluster] == ABSENT && !model->backing ? 0 : model->now[cluster];
}

/* What is read, and told to be zero, is what was written. */
static inline void check_range_reads(const Model *model, uint64_t first, uint64_t count) {
        CLEANUP(freep) unsigned char *bytes = clusters_new(count);
        uint64_t zeroes = 0;
        bool whole = true;
        Reason reason = REASON_INIT;

        for (uint64_t i = 0; i < count; i++)
                whole &= version_shown(model, first + i) != ABSENT;
        CHECK_INT(qcow2_writer_read(model->writer, bytes, count * GRAIN, first * GRAIN, &reason),
                  whole ? 0 : -EOPNOTSUPP);
        for (uint64_t i = 0; whole && i < count; i++)
                CHECK(is_version(bytes + i * GRAIN, first + i, version_shown(model, first + i)));
        while (zeroes < count && version_shown(model, first + zeroes) == 0)
                zeroes++;
        CHECK_INT(qcow2_writer_zeroes(model->writer, count * GRAIN, first * GRAIN), zeroes * GRAIN);
}

/* Finished, it is in order and reads as it must, by QEMU and by us. */
static inline void check_finished(Model *model) {
        Reason reason = REASON_INIT;

        if (qcow2_writer_finish(model->writer, &reason) < 0) {
                fprintf(stderr, "%s\n", reason.text);
                exit(1);
        }
        model->writer = qcow2_writer_free(model->writer);
        save_versions(model, "expected.raw", model->now);
        run(&model->directory, "qemu-img check -f qcow2 " NAME);
        run(&model->directory, "qemu-img compare -f qcow2 -F raw " NAME " expected.raw");
        run(&model->directory, "qemu-img info --output=json " NAME " | grep -q '\"virtual-size\": %" PRIu64 ",'",
            round_up(model->size, 512));
}
