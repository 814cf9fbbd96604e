#include "capture/survey.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "capture/feed.h"
#include "util/bytes.h"

#define HEAD_SIZE (1u << 20)    /* bytes */
#define COMPARE_SIZE (64u << 10) /* bytes at once; every reader can */

/* SURVEY_SAMPLES times one block out of all that were offered, each as likely as any other. */
typedef struct Samples {
        uint64_t random; /* splitmix64 */
        uint64_t offered;
        uint64_t starts[SURVEY_SAMPLES];
} Samples;

static uint64_t random_next(uint64_t *state) {
        uint64_t z = (*state += 0x9e3779b97f4a7c15u);

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
}

static void samples_offer(Samples *samples, uint64_t start, uint64_t blocks, uint32_t block_size) {
        samples->offered += blocks;
        for (size_t i = 0; blocks > 0 && i < SURVEY_SAMPLES; i++) {
                uint64_t pick = random_next(&samples->random) % samples->offered;

                if (pick < blocks)
                        samples->starts[i] = start + pick * block_size;
        }
}

/* The whole blocks of a clean extent that is not known to be zero. */
static void offer_extent(const PlanDisk *disk, const SourceExtent *extent, Samples *samples) {
        uint64_t start = round_up(extent->start, disk->block_size);
        uint64_t end = min_u64(extent->start + extent->length, disk->parent_size);

        if (end > start)
                samples_offer(samples, start, (end - start) / disk->block_size, disk->block_size);
}

static int walk(SourceReader *reader, const PlanDisk *disk, Samples *samples, SourceExtents *extents, Plan *plan,
                uint64_t *ret_read, Reason *reterr) {
        uint64_t read = 0;

        for (uint64_t at = 0, length; at < disk->size; at += length) {
                int rc;

                length = min_u64(WINDOW_SIZE, disk->size - at);
                source_extents_clear(extents);
                rc = source_extents(reader, at, length, extents, reterr);
                if (rc < 0)
                        return rc;
                rc = plan_window(disk, at, length, extents, NULL, plan);
                if (rc < 0)
                        return fail_oom(reterr);
                read += plan->read;
                for (size_t i = 0; i < extents->count; i++)
                        if (!extents->items[i].dirty && !extents->items[i].zero)
                                offer_extent(disk, &extents->items[i], samples);
        }
        *ret_read = read;
        return 0;
}

/* 1 where both have the same bytes, 0 where not. */
static int compare(SourceReader *reader, Chain *parent, uint64_t start, uint64_t length, Reason *why, Reason *reterr) {
        unsigned char now[COMPARE_SIZE], then[COMPARE_SIZE];

        for (uint64_t end = start + length, part; start < end; start += part) {
                Reason damage = REASON_INIT;
                int rc;

                part = min_u64(end - start, COMPARE_SIZE);
                rc = source_read(reader, now, part, start, reterr);
                if (rc < 0)
                        return rc;
                rc = chain_read(parent, then, part, start, &damage);
                if (rc == -ENOMEM)
                        return fail_oom(reterr);
                if (rc < 0)
                        return fail(why, 0, "the parent cannot be read: %.*s", REASON_MAX - 64, damage.text);
                if (memcmp(now, then, part) != 0)
                        return fail(why, 0, "unchanged according to the hypervisor, but the parent differs near byte %llu",
                                    (unsigned long long) start);
        }
        return 1;
}

static int compare_head(SourceReader *reader, const PlanDisk *disk, Chain *parent, SourceExtents *extents, Reason *why,
                        Reason *reterr) {
        uint64_t length = min_u64(HEAD_SIZE, min_u64(disk->size, disk->parent_size));
        int rc;

        if (length == 0)
                return 1;
        source_extents_clear(extents);
        rc = source_extents(reader, 0, length, extents, reterr);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < extents->count; i++) {
                const SourceExtent *extent = &extents->items[i];

                if (extent->dirty || extent->zero)
                        continue;
                rc = compare(reader, parent, extent->start, extent->length, why, reterr);
                if (rc <= 0)
                        return rc;
        }
        return 1;
}

static int compare_starts(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

        return (x > y) - (x < y);
}

static int compare_samples(SourceReader *reader, const PlanDisk *disk, Chain *parent, Samples *samples, Reason *why,
                           Reason *reterr) {
        if (samples->offered == 0)
                return 1;
        qsort(samples->starts, SURVEY_SAMPLES, sizeof *samples->starts, compare_starts);
        for (size_t i = 0; i < SURVEY_SAMPLES; i++) {
                int rc;

                if (i > 0 && samples->starts[i] == samples->starts[i - 1])
                        continue;
                rc = compare(reader, parent, samples->starts[i], disk->block_size, why, reterr);
                if (rc <= 0)
                        return rc;
        }
        return 1;
}

int survey_disk(SourceReader *reader, const PlanDisk *disk, Chain *parent, uint64_t *ret_read, Reason *why, Reason *reterr) {
        CLEANUP(source_extents_clear) SourceExtents extents = { 0 };
        CLEANUP(plan_clear) Plan plan = { 0 };
        Samples samples = { 0 };
        int rc;

        if (getrandom(&samples.random, sizeof samples.random, 0) != sizeof samples.random)
                return fail_errno(reterr, -errno, "no random numbers");
        rc = walk(reader, disk, &samples, &extents, &plan, ret_read, reterr);
        if (rc < 0 || !parent)
                return rc < 0 ? rc : 1;
        rc = compare_head(reader, disk, parent, &extents, why, reterr);
        if (rc <= 0)
                return rc;
        return compare_samples(reader, disk, parent, &samples, why, reterr);
}
