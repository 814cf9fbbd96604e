/* Images that we write are what QEMU says they should be, whatever ended the one that wrote them. */
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>

#include "formats/qcow2/layout.h"
#include "formats/qcow2/writer-plan.h"
#include "qcow2-model.h"

#define MIB (1u << 20)
#define GIB (1u << 30)
#define BLOCK 4096u
#define BLOCKS_MAX (1u << 16)

/* What was written since the file was last synced, which is lost in part where the power goes. */

typedef struct Unsynced {
        uint64_t offset;
        bool was_there; /* in the file */
        unsigned char before[BLOCK];
} Unsynced;

static struct {
        int fd;              /* -1: nothing is kept */
        Unsynced *blocks;
        size_t count, capacity;
        bool kept[BLOCKS_MAX];
        uint64_t size;       /* of the file when it was synced */
        unsigned fail_after; /* writes; 0: never */
        bool gone;           /* nothing is changed any more */
        bool fail_sync;      /* the power goes before all of the file is synced */
} power = { .fd = -1 };

static uint64_t size_of(int fd) {
        struct stat st;

        CHECK_INT(fstat(fd, &st), 0);
        return (uint64_t) st.st_size;
}

static void forget_unsynced(int fd) {
        power.fd = fd;
        power.count = 0;
        memset(power.kept, false, sizeof power.kept);
        power.size = fd >= 0 ? size_of(fd) : 0;
}

static void keep(uint64_t offset) {
        Unsynced *block;

        CHECK(offset / BLOCK < BLOCKS_MAX);
        if (power.kept[offset / BLOCK])
                return;
        power.kept[offset / BLOCK] = true;
        if (power.count == power.capacity) {
                power.capacity = power.capacity ? 2 * power.capacity : 64;
                power.blocks = reallocarray(power.blocks, power.capacity, sizeof *power.blocks);
                CHECK(power.blocks);
        }
        block = &power.blocks[power.count++];
        block->offset = offset;
        block->was_there = offset + BLOCK <= size_of(power.fd);
        if (block->was_there)
                CHECK_INT(pread_whole(power.fd, block->before, BLOCK, offset), 0);
}

/* These stand before the library's. */
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
        uint64_t end = (uint64_t) offset + length;

        for (uint64_t at = round_down((uint64_t) offset, BLOCK); power.fd >= 0 && at < end; at += BLOCK)
                keep(at);
        if (power.fail_after > 0 && --power.fail_after == 0) {
                errno = ENOSPC;
                return -1;
        }
        return syscall(SYS_pwrite64, fd, bytes, length, offset);
}

int fdatasync(int fd) {
        if (power.fd >= 0)
                forget_unsynced(power.fd);
        return (int) syscall(SYS_fdatasync, fd);
}

int fsync(int fd) {
        if (!power.fail_sync)
                return (int) syscall(SYS_fsync, fd);
        errno = EIO;
        return -1;
}

int ftruncate(int fd, off_t length) {
        return power.gone ? 0 : (int) syscall(SYS_ftruncate, fd, length);
}

static void lose_some(void) {
        uint64_t size = size_of(power.fd);
        int fd = power.fd;

        power.fd = -1;
        for (size_t i = 0; i < power.count; i++) {
                Unsynced *block = &power.blocks[i];

                if (!block->was_there)
                        memset(block->before, 0, BLOCK);
                if (random_below(2) && block->offset + BLOCK <= size)
                        CHECK_INT(pwrite_whole(fd, block->before, BLOCK, block->offset), 0);
        }
        if (size > power.size && random_below(2))
                CHECK_INT(ftruncate(fd, (off_t) (power.size + random_below(size - power.size))), 0);
}

typedef enum End { END_CLOSED, END_KILLED, END_POWER, ENDS } End;

/* It goes on as the last sync left it. */
static void end_and_resume(Model *model, End end, bool *was_synced) {
        Reason reason = REASON_INIT;
        int rc;

        power.gone = end != END_CLOSED;
        model->writer = qcow2_writer_free(model->writer);
        power.gone = false;
        if (end == END_POWER)
                lose_some();
        forget_unsynced(model->file.file.fd);
        rc = qcow2_writer_resume(&model->file, NULL, &model->writer, &reason);
        CHECK(rc == 1 || (rc == 0 && !*was_synced));
        if (rc == 1)
                return;
        *was_synced = false;
        CHECK_INT(qcow2_writer_new(&model->file, &model->writer, &reason), 0);
        for (uint64_t cluster = 0; cluster < model->clusters; cluster++) {
                model->synced[cluster] = ABSENT;
                model->touched[cluster] = false;
        }
}

/* What was not touched is as it was; what was is one of the versions that it had, or, where some was lost, anything. */
static void take_as_found(Model *model, bool lost) {
        CLEANUP(freep) uint64_t *bytes = clusters_new(1);
        Reason reason = REASON_INIT;

        for (uint64_t cluster = 0; cluster < model->clusters; cluster++) {
                int rc = qcow2_writer_read(model->writer, bytes, GRAIN, cluster * GRAIN, &reason);
                uint64_t version = (bytes[0] ^ cluster << 20 ^ 0x9e3779b97f4a7c15u) >> 40, synced = model->synced[cluster];

                if (rc == -EOPNOTSUPP)
                        version = ABSENT;
                else if (bytes[0] == 0)
                        version = 0;
                CHECK(rc == 0 || version == ABSENT);
                if (version != ABSENT && !is_version(bytes, cluster, version)) {
                        CHECK(lost && model->touched[cluster]);
                        CHECK_INT(model_write(model, cluster, 1, &reason), 0);
                        continue;
                }
                CHECK(model->touched[cluster] || version == synced || (version == 0 && synced == ABSENT && !model->backing));
                CHECK(version == 0 || version == synced || synced == ABSENT || version > synced);
                model->now[cluster] = version;
        }
}

static void do_one(Model *model, bool *was_synced) {
        uint64_t first = random_below(model->clusters), count = 1 + random_below(min_u64(model->clusters - first, 20));
        uint64_t chance = random_below(20);
        Reason reason = REASON_INIT;

        if (chance < 8) {
                CHECK_INT(model_write(model, first, count, &reason), 0);
        } else if (chance < 11) {
                CHECK_INT(model_zero(model, first, count, &reason), 0);
        } else if (chance < 15) {
                check_range_reads(model, first, count);
        } else if (chance < 18) {
                CHECK_INT(model_sync(model, &reason), 0);
                *was_synced = true;
        } else if (chance == 18) {
                power.fail_after = 1 + (unsigned) random_below(3);
                for (int rc = 0; rc == 0;) {
                        if (random_below(2))
                                rc = model_write(model, first, count, &reason);
                        else
                                rc = qcow2_writer_sync(model->writer, &reason);
                        CHECK(rc == 0 || rc == -ENOSPC);
                }
                CHECK_SAYS(reason, "No space left on device");
                end_and_resume(model, END_CLOSED, was_synced);
                take_as_found(model, true);
        } else {
                End end = random_below(ENDS);

                end_and_resume(model, end, was_synced);
                take_as_found(model, end == END_POWER);
        }
}

static void images_are_in_order_and_survive_everything(void) {
        enum { ROUNDS = 60 };

        for (unsigned round = 0; round < ROUNDS; round++) {
                CLEANUP(model_clear) Model model = model_new(1 + random_below(random_below(4) ? 4 * MIB : 70000),
                                                             random_below(3) == 0);
                bool was_synced = false;

                forget_unsynced(model.file.file.fd);
                for (uint64_t left = 20 + random_below(100); left > 0; left--)
                        do_one(&model, &was_synced);
                forget_unsynced(-1);
                check_range_reads(&model, 0, model.clusters);
                check_finished(&model);
        }
}

static void what_says_that_it_is_finished_is_whole(void) {
        enum { ROUNDS = 30 };
        unsigned finished = 0;

        for (unsigned round = 0; round < ROUNDS; round++) {
                CLEANUP(model_clear) Model model = model_new(1 + random_below(MIB), false);
                unsigned char features[8];
                Reason reason = REASON_INIT;

                CHECK_INT(model_write(&model, 0, model.clusters, &reason), 0);
                CHECK_INT(model_sync(&model, &reason), 0);
                forget_unsynced(model.file.file.fd);
                power.fail_sync = true;
                CHECK_INT(qcow2_writer_finish(model.writer, &reason), -EIO);
                power.fail_sync = false;
                power.gone = true;
                model.writer = qcow2_writer_free(model.writer);
                power.gone = false;
                lose_some();
                forget_unsynced(-1);
                CHECK_INT(pread_whole(model.file.file.fd, features, sizeof features, 72), 0);
                if (load_be64(features) & QCOW2_FEATURE_DIRTY)
                        continue;
                finished++;
                run(&model.directory, "qemu-img check -f qcow2 " NAME);
        }
        CHECK(finished > 0 && finished < ROUNDS);
}

/* Threads beside each other, each with clusters of its own, all over a disk of more tables than are kept in memory. */

#define THREADS 6u
#define TABLES 70u

typedef struct Work {
        Model *model;
        unsigned number;
        pthread_t thread;
} Work;

static void *work(void *argument) {
        const Work *own = argument;
        Model *model = own->model;
        CLEANUP(freep) unsigned char *bytes = clusters_new(2);
        uint64_t state = own->number * 7919 + 1;
        Reason reason = REASON_INIT;

        for (unsigned i = 0; i < 150; i++) {
                uint64_t pair, cluster, version = 2 + own->number * 1000 + i;

                state = state * 6364136223846793005u + 1442695040888963407u;
                pair = (state >> 33) % (model->clusters / 2 / THREADS) * THREADS + own->number;
                cluster = 2 * pair;
                fill_cluster(bytes, cluster, version);
                fill_cluster(bytes + GRAIN, cluster + 1, version);
                CHECK_INT(qcow2_writer_write(model->writer, bytes, 2 * GRAIN, cluster * GRAIN, &reason), 0);
                model->now[cluster] = model->now[cluster + 1] = version;
                if (i % 3 == 0) {
                        CHECK_INT(qcow2_writer_zero(model->writer, GRAIN, cluster * GRAIN, &reason), 0);
                        model->now[cluster] = 0;
                }
                if (i % 5 == 0) {
                        CHECK_INT(qcow2_writer_read(model->writer, bytes, 2 * GRAIN, cluster * GRAIN, &reason), 0);
                        CHECK(is_version(bytes, cluster, model->now[cluster]));
                        CHECK(is_version(bytes + GRAIN, cluster + 1, version));
                }
                if (i % 40 == own->number)
                        CHECK_INT(qcow2_writer_sync(model->writer, &reason), 0);
        }
        return NULL;
}

static void threads_do_not_disturb_each_other(void) {
        CLEANUP(model_clear) Model model = model_new((uint64_t) TABLES * WRITER_ENTRIES * GRAIN, false);
        Work works[THREADS];

        for (unsigned i = 0; i < THREADS; i++) {
                works[i] = (Work) { .model = &model, .number = i };
                CHECK_INT(pthread_create(&works[i].thread, NULL, work, &works[i]), 0);
        }
        for (unsigned i = 0; i < THREADS; i++)
                CHECK_INT(pthread_join(works[i].thread, NULL), 0);
        CHECK(qcow2_writer_zeroes(model.writer, model.size, 0) < model.size);
        check_finished(&model);
}

/* Entries of tables, put into the file of one that was not finished. */

static WriterPlan plan_of(const Model *model) {
        WriterPlan plan;

        CHECK_INT(writer_plan_make(model->size, model->file.backing, &plan, NULL), 0);
        return plan;
}

static uint64_t load_entry(const Model *model, uint64_t table, uint64_t index) {
        unsigned char bytes[8];

        CHECK_INT(pread_whole(model->file.file.fd, bytes, 8, table + 8 * index), 0);
        return load_be64(bytes);
}

static void store_entry(const Model *model, uint64_t table, uint64_t index, uint64_t entry) {
        unsigned char bytes[8];

        store_be64(bytes, entry);
        CHECK_INT(pwrite_whole(model->file.file.fd, bytes, 8, table + 8 * index), 0);
}

/* A disk of three clusters of data that is not finished, and where its tables lie. */
static Model unfinished(uint64_t size, uint64_t *ret_l1, uint64_t *ret_l2) {
        Model model = model_new(size, false);
        Reason reason = REASON_INIT;

        CHECK_INT(model_write(&model, 0, 3, &reason), 0);
        CHECK_INT(model_sync(&model, &reason), 0);
        model.writer = qcow2_writer_free(model.writer);
        *ret_l1 = plan_of(&model).l1_start * GRAIN;
        *ret_l2 = load_entry(&model, *ret_l1, 0) & QCOW2_OFFSET_MASK;
        CHECK(*ret_l2 > 0);
        return model;
}

static uint64_t entry_of(uint64_t cluster) {
        return QCOW2_COPIED | cluster * GRAIN;
}

static void images_beyond_2_and_4_gib_are_counted(void) {
        static const uint64_t lasts[] = { WRITER_COUNTS - 2, WRITER_COUNTS - 1, WRITER_COUNTS - 20, 2 * WRITER_COUNTS - 3 };

        for (size_t i = 0; i < sizeof lasts / sizeof *lasts; i++) {
                uint64_t l1, l2;
                CLEANUP(model_clear) Model model = unfinished(8 * (uint64_t) GIB, &l1, &l2);
                Reason reason = REASON_INIT;

                CHECK_INT(ftruncate(model.file.file.fd, (off_t) (lasts[i] + 1) * GRAIN), 0);
                store_entry(&model, l2, 5, entry_of(lasts[i]));
                CHECK_INT(qcow2_writer_resume(&model.file, NULL, &model.writer, &reason), 1);
                CHECK_INT(model_write(&model, 5, 1, &reason), 0);
                CHECK_INT(model_write(&model, 9000, 25, &reason), 0);
                CHECK_INT(model_sync(&model, &reason), 0);
                model.writer = qcow2_writer_free(model.writer);
                CHECK_INT(qcow2_writer_resume(&model.file, NULL, &model.writer, &reason), 1);
                CHECK_INT(model_write(&model, 6, 3, &reason), 0);
                check_range_reads(&model, 8990, 50);
                check_finished(&model);
        }
}

static void tables_that_make_no_sense_are_not_gone_on_with(void) {
        static const struct {
                bool l1;
                uint64_t index, entry;
        } cases[] = {
                { true, 0, QCOW2_COPIED | 512 },                /* not at a cluster */
                { true, 0, QCOW2_COPIED },
                { true, 0, QCOW2_COPIED | 3 << WRITER_CLUSTER_BITS }, /* where other things have their place */
                { true, 0, QCOW2_COPIED | UINT64_C(1) << 55 },  /* past the end */
                { true, 0, UINT64_C(6) << WRITER_CLUSTER_BITS }, /* not its own */
                { true, 1, QCOW2_COPIED | 5 << WRITER_CLUSTER_BITS }, /* of no disk */
                { true, 0, QCOW2_ZERO },
                { true, 0, UINT64_MAX },
                { false, 0, QCOW2_COPIED | 512 },
                { false, 0, QCOW2_COPIED },
                { false, 0, QCOW2_COPIED | 1 << WRITER_CLUSTER_BITS },
                { false, 0, QCOW2_COPIED | QCOW2_COMPRESSED | 5 << WRITER_CLUSTER_BITS },
                { false, 0, QCOW2_COPIED | 5 << WRITER_CLUSTER_BITS | QCOW2_ZERO },
                { false, 0, QCOW2_COPIED | UINT64_C(1) << 55 },
                { false, 0, UINT64_C(5) << WRITER_CLUSTER_BITS },
                { false, 7, QCOW2_COPIED | 5 << WRITER_CLUSTER_BITS }, /* another's */
                { false, 7, QCOW2_COPIED | 7 << WRITER_CLUSTER_BITS }, /* the table itself */
                { false, 8191, 2 },
        };

        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
                uint64_t l1, l2;
                CLEANUP(model_clear) Model model = unfinished(MIB, &l1, &l2);
                Reason reason = REASON_INIT;

                CHECK_INT(l2, 7 * GRAIN); /* header, counts, L1 table, block of counts, data, table */
                CHECK_INT(load_entry(&model, l2, 1), entry_of(5));
                store_entry(&model, cases[i].l1 ? l1 : l2, cases[i].index, cases[i].entry);
                CHECK_INT(qcow2_writer_resume(&model.file, NULL, &model.writer, &reason), 0);
                store_entry(&model, l1, 0, entry_of(7));
                CHECK_INT(size_of(model.file.file.fd), 8 * GRAIN); /* it is as it was */
        }
}

static void what_is_of_another_disk_is_not_gone_on_with(void) {
        uint64_t l1, l2;
        CLEANUP(model_clear) Model model = unfinished(MIB, &l1, &l2);
        const atomic_bool canceled = true;
        Qcow2WriterFile other = model.file;
        Reason reason = REASON_INIT;
        Qcow2Writer *writer;

        other.disk_size += 512;
        CHECK_INT(qcow2_writer_resume(&other, NULL, &writer, &reason), 0);
        other = model.file;
        other.backing = "base.qcow2";
        CHECK_INT(qcow2_writer_resume(&other, NULL, &writer, &reason), 0);
        CHECK_INT(qcow2_writer_resume(&model.file, &canceled, &writer, &reason), -ECANCELED);
        CHECK_INT(qcow2_writer_resume(&model.file, NULL, &model.writer, &reason), 1);
        check_range_reads(&model, 0, model.clusters);
        CHECK_INT(qcow2_writer_finish(model.writer, &reason), 0);
        model.writer = qcow2_writer_free(model.writer);
        CHECK_INT(qcow2_writer_resume(&model.file, NULL, &writer, &reason), 0); /* it is finished */
}

/* Whatever is found: it is begun anew, or an image that is in order comes of it. */
static void damaged_files_never_make_damaged_images(void) {
        uint64_t l1, l2, length, resumed = 0;
        CLEANUP(model_clear) Model model = unfinished(MIB, &l1, &l2);
        CLEANUP(freep) uint8_t *whole = load_file(&model.directory, NAME, &length);
        int fd = model.file.file.fd;

        for (unsigned i = 0; i < 400; i++) {
                Reason reason = REASON_INIT;
                int rc;

                CHECK_INT(pwrite_whole(fd, whole, length, 0), 0);
                CHECK_INT(ftruncate(fd, (off_t) length), 0);
                for (uint64_t flips = random_below(3); flips > 0; flips--) {
                        uint64_t area = random_below(3), at = random_below(random_below(2) ? 96 : GRAIN);
                        uint8_t byte = (uint8_t) (1u << random_below(8));

                        CHECK_INT(pwrite_whole(fd, &byte, 1, (area == 0 ? 0 : area == 1 ? l1 : l2) + at), 0);
                }
                if (random_below(4) == 0)
                        CHECK_INT(ftruncate(fd, (off_t) random_below(length + MIB)), 0);
                rc = qcow2_writer_resume(&model.file, NULL, &model.writer, &reason);
                CHECK(rc == 0 || rc == 1);
                if (rc == 0)
                        continue;
                resumed++;
                CHECK_INT(model_write(&model, random_below(8), 1 + random_below(8), &reason), 0);
                CHECK_INT(qcow2_writer_finish(model.writer, &reason), 0);
                model.writer = qcow2_writer_free(model.writer);
                run(&model.directory, "qemu-img check -f qcow2 " NAME);
        }
        CHECK(resumed > 10);
}

static void clusters_are_told_apart_as_qemu_tells_them(void) {
        CLEANUP(model_clear) Model model = model_new(5 * GRAIN, true);
        Reason reason = REASON_INIT;

        CHECK_INT(model_write(&model, 0, 1, &reason), 0);
        CHECK_INT(model_zero(&model, 1, 1, &reason), 0);
        CHECK_INT(model_write(&model, 3, 2, &reason), 0);
        CHECK_INT(model_zero(&model, 3, 1, &reason), 0);
        check_finished(&model);
        run(&model.directory, "qemu-img map --output=json " NAME " | tr -d ' []' |"
                              "sed 's/,\"offset.*//; s/\"present\":true,//' >map");
        run(&model.directory, "cat >wanted <<'END'\n"
                              "{\"start\":0,\"length\":65536,\"depth\":0,\"zero\":false,\"data\":true\n"
                              "{\"start\":65536,\"length\":65536,\"depth\":0,\"zero\":true,\"data\":false},\n"
                              "{\"start\":131072,\"length\":65536,\"depth\":1,\"zero\":false,\"data\":true\n"
                              "{\"start\":196608,\"length\":65536,\"depth\":0,\"zero\":true,\"data\":false},\n"
                              "{\"start\":262144,\"length\":65536,\"depth\":0,\"zero\":false,\"data\":true\n"
                              "END\ndiff wanted map");
        run(&model.directory, "qemu-img info " NAME " >info; grep -q 'backing file: base.qcow2' info && "
                              "grep -q 'backing file format: qcow2' info");
}

static void sizes_that_no_image_can_have_are_refused(void) {
        CLEANUP(model_clear) Model empty = model_new(0, false);
        Reason reason = REASON_INIT;
        WriterPlan plan;

        check_finished(&empty);
        CHECK_INT(writer_plan_make(UINT64_C(1) << 51, NULL, &plan, &reason), 0);
        CHECK_INT(writer_plan_make((UINT64_C(1) << 51) + 1, NULL, &plan, &reason), -EFBIG);
        CHECK_SAYS(reason, "more than a qcow2 image can have");
}

/* Another seed than the usual one may be given, to look further. */
int main(int argc, char **argv) {
        random_seed(argc > 1 ? strtoull(argv[1], NULL, 10) : 5);
        RUN(images_are_in_order_and_survive_everything);
        RUN(what_says_that_it_is_finished_is_whole);
        RUN(threads_do_not_disturb_each_other);
        RUN(images_beyond_2_and_4_gib_are_counted);
        RUN(tables_that_make_no_sense_are_not_gone_on_with);
        RUN(what_is_of_another_disk_is_not_gone_on_with);
        RUN(damaged_files_never_make_damaged_images);
        RUN(clusters_are_told_apart_as_qemu_tells_them);
        RUN(sizes_that_no_image_can_have_are_refused);
        free(power.blocks);
        return unit_result();
}
