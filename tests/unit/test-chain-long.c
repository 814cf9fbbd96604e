/* Chains of any length open and read right, and threads share them. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

#include "chain-model.h"

#define BLOCK 4096u
#define BLOCKS 2048u

/* Which of the first count points holds a block: each incremental has one, the full one all. */
static unsigned holder_of(unsigned block, unsigned count) {
        for (unsigned i = count; --i > 0;)
                if (i * 7 % BLOCKS == block)
                        return i;
        return 0;
}

/* Every byte of a block of a point. */
static uint8_t value_of(unsigned point, unsigned block) {
        return (uint8_t) (1 + (point * 31 + block) % 255);
}

/* A chain of count points on one disk. There are distinct layers; those of the incrementals repeat, so that long chains
 * are made of few files. */
static void make_chain(Fixture *f, unsigned count, unsigned distinct) {
        LayerModel layer = layer_model_new(BLOCKS * BLOCK, BLOCK, "lz4");

        for (unsigned i = 0; i < count; i++) {
                char name[POINT_NAME_MAX], parent[POINT_NAME_MAX];
                static const char *const disks[] = { "vda" };
                CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
                static LayerTotals totals[4096];
                Reason reason = REASON_INIT;
                ManifestDisk *disk;
                unsigned file = i > 0 ? 1 + (i - 1) % (distinct - 1) : 0;
                char path[256];

                memset(layer.states, i > 0 ? MODEL_ABSENT : MODEL_DATA, BLOCKS);
                layer.states[i * 7 % BLOCKS] = MODEL_DATA;
                for (unsigned block = 0; block < BLOCKS; block++)
                        if (layer.states[block] == MODEL_DATA)
                                memset(layer.bytes + block * BLOCK, value_of(i, block), BLOCK);
                point_model_name(i, name);
                if (i > 0)
                        point_model_name(i - 1, parent);
                manifest = sample_manifest(name, i > 0 ? parent : NULL, i + 1, disks, 1);
                disk = &manifest->disks[0];
                disk->size = BLOCKS * BLOCK;
                free(manifest->capture);
                CHECK(asprintf(&manifest->capture, "all") > 0);
                if (i == 0)
                        make_capture_directory(f, manifest);
                free(disk->layers[0].file);
                CHECK(asprintf(&disk->layers[0].file, "%u.layer", file) > 0);
                snprintf(path, sizeof path, "data/all/%s", disk->layers[0].file);
                if (i < distinct)
                        totals[i] = layer_model_write(&layer, vm_fd(f->vm), path);
                disk->layers[0].length = totals[file].length;
                disk->layers[0].seal = totals[file].seal;
                CHECK_INT(manifest_commit(f->vm, manifest, &reason), 0);
        }
        layer_model_clear(&layer);
}

static void check_blocks(Chain *chain, unsigned count, unsigned reads, uint64_t seed) {
        uint8_t buffer[BLOCK];
        Reason reason = REASON_INIT;

        for (unsigned i = 0; i < reads; i++) {
                unsigned block, skip;

                seed = seed * 6364136223846793005u + 1442695040888963407u;
                block = (unsigned) (seed >> 33) % BLOCKS;
                skip = (unsigned) (seed >> 50) % BLOCK;
                CHECK_INT(chain_read(chain, buffer, BLOCK - skip, (uint64_t) block * BLOCK + skip, &reason), 0);
                for (unsigned b = 0; b < BLOCK - skip; b++)
                        CHECK_INT(buffer[b], value_of(holder_of(block, count), block));
        }
}

static Chain *open_chain(Fixture *f, unsigned point) {
        char name[POINT_NAME_MAX];
        Reason reason = REASON_INIT;
        Chain *chain;

        point_model_name(point, name);
        CHECK_INT(chain_open(f->vm, name, "vda", &chain, &reason), 0);
        CHECK_INT(chain_layer_count(chain), point + 1);
        CHECK(!chain_damage(chain));
        return chain;
}

static void a_thousand_incrementals_read_right_with_few_descriptors(void) {
        Fixture f = fixture();
        struct rlimit limit, before;
        Repository *repository;
        Reason reason = REASON_INIT;
        Chain *chain;

        make_chain(&f, 1001, 1001);
        CHECK_INT(getrlimit(RLIMIT_NOFILE, &before), 0);
        limit = before;
        limit.rlim_cur = 128;
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
        CHECK_INT(repository_open(f.directory.path, 8 << 20, &repository, &reason), 0);
        vm_free(f.vm);
        CHECK_INT(vm_open(repository, "vm1", &f.vm, &reason), 0);
        chain = open_chain(&f, 1000);
        check_blocks(chain, 1001, 500, 1);
        chain_unref(chain);
        chain = open_chain(&f, 700);
        check_blocks(chain, 701, 500, 2);
        chain_unref(chain);
        vm_free(f.vm);
        f.vm = NULL;
        CHECK_INT(setrlimit(RLIMIT_NOFILE, &before), 0);
        repository_free(repository);
        fixture_clear(&f);
}

static void a_chain_of_ten_thousand_opens_and_reads(void) {
        Fixture f = fixture();
        uint8_t buffer[BLOCK];
        Reason reason = REASON_INIT;
        Chain *chain;

        make_chain(&f, 10001, 10);
        chain = open_chain(&f, 10000); /* the same nine layers over and over */
        CHECK_INT(chain_read(chain, buffer, BLOCK, 0, &reason), 0);
        CHECK_INT(buffer[0], value_of(0, 0));
        CHECK_INT(chain_read(chain, buffer, BLOCK, 63 * BLOCK, &reason), 0);
        CHECK_INT(buffer[0], value_of(9, 63));
        chain_unref(chain);
        fixture_clear(&f);
}

typedef struct Crowd {
        Fixture *f;
        atomic_uint number;
} Crowd;

static void *open_and_read(void *context) {
        Crowd *crowd = context;
        unsigned number = atomic_fetch_add(&crowd->number, 1);

        for (unsigned i = 0; i < 12; i++) {
                unsigned point = (number * 5 + i * 3) % 30;
                Chain *chain = open_chain(crowd->f, point);
                ChainExtent extent;

                check_blocks(chain, point + 1, 20, number * 100 + i);
                for (uint64_t offset = 0; offset < chain_size(chain); offset = extent.start + extent.length)
                        CHECK_INT(chain_next_extent(chain, offset, &extent, NULL), 0);
                chain_unref(chain);
        }
        return NULL;
}

static void threads_open_read_and_close_at_once(void) {
        enum { THREADS = 8 };
        Fixture f = fixture();
        Crowd crowd = { .f = &f };
        pthread_t threads[THREADS];

        make_chain(&f, 30, 30);
        for (int i = 0; i < THREADS; i++)
                CHECK_INT(pthread_create(&threads[i], NULL, open_and_read, &crowd), 0);
        for (int i = 0; i < THREADS; i++)
                CHECK_INT(pthread_join(threads[i], NULL), 0);
        fixture_clear(&f);
}

int main(void) {
        RUN(threads_open_read_and_close_at_once);
        RUN(a_thousand_incrementals_read_right_with_few_descriptors);
        RUN(a_chain_of_ten_thousand_opens_and_reads);
        return unit_result();
}
