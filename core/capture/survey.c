#include "capture/survey.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "capture/feed.h"
#include "capture/parent.h"
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

/* What a look at a disk needs. */
typedef struct Survey {
        Readers *readers;
        const PlanDisk *disk;
        Chain *parent;
        bool parent_map; /* is asked */
        Samples samples;
        SourceExtents extents, head; /* of the window, and of what is compared at the disk's beginning */
        PlanParent held; /* the parent's, where it is asked */
        Plan plan;
} Survey;

static void survey_clear(Survey *survey) {
        source_extents_clear(&survey->extents);
        source_extents_clear(&survey->head);
        parent_extents_clear(&survey->held.extents);
        plan_clear(&survey->plan);
}

/* Nothing is promised for what is below the top image: the parent may have left it out. */
static bool is_clean(const Survey *survey, const SourceExtent *extent) {
        return !extent->dirty && !extent->zero && !(survey->disk->top && extent->below);
}

static int plan_one(Survey *survey, uint64_t start, uint64_t length, Reason *reterr) {
        bool asked = survey->parent && survey->parent_map;
        int rc = 0;

        if (asked)
                rc = parent_extents_load(survey->parent, start, start + length, &survey->held.extents);
        if (rc == 0)
                rc = plan_window(survey->disk, start, length, &survey->extents, asked ? &survey->held : NULL, &survey->plan);
        return rc < 0 ? fail_errno(reterr, rc, "cannot look the disk over") : 0;
}

/* What is clean of the window, for later. */
static int note_clean(Survey *survey) {
        uint64_t head = min_u64(HEAD_SIZE, survey->disk->parent_size);
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < survey->extents.count; i++) {
                SourceExtent extent = survey->extents.items[i];

                if (!is_clean(survey, &extent))
                        continue;
                offer_extent(survey->disk, &extent, &survey->samples);
                if (extent.start >= head)
                        continue;
                extent.length = min_u64(extent.length, head - extent.start);
                rc = source_extents_add(&survey->head, extent);
        }
        return rc;
}

static int walk(Survey *survey, Outline *outline, SurveyTotals *ret, Reason *reterr) {
        const PlanDisk *disk = survey->disk;

        *ret = (SurveyTotals) { 0 };
        for (uint64_t at = 0, length; at < disk->size; at += length) {
                int rc;

                length = min_u64(WINDOW_SIZE, disk->size - at);
                source_extents_clear(&survey->extents);
                rc = readers_extents(survey->readers, at, length, &survey->extents, reterr);
                if (rc == 0)
                        rc = plan_one(survey, at, length, reterr);
                if (rc < 0)
                        return rc;
                ret->read += survey->plan.read;
                for (size_t i = 0; i < survey->plan.count; i++)
                        ret->changed += survey->plan.items[i].length;
                if (note_clean(survey) < 0)
                        return fail_oom(reterr);
                outline_keep(outline, at, length, &survey->extents);
        }
        return 0;
}

/* What the parent lacks is taken whatever the bitmap says. */
static bool parent_lacks(const Survey *survey, uint64_t start, uint64_t length) {
        ParentExtents extents = { 0 };
        bool lacks = survey->parent_map && parent_extents_load(survey->parent, start, start + length, &extents) == 0;

        if (lacks) {
                lacks = false;
                for (size_t i = 0; i < extents.count; i++)
                        lacks |= extents.items[i].state == PARENT_LOST;
        }
        parent_extents_clear(&extents);
        return lacks;
}

/* 1 where both have the same bytes, 0 where not. */
static int compare(const Survey *survey, uint64_t start, uint64_t length, Reason *why, Reason *reterr) {
        unsigned char now[COMPARE_SIZE], then[COMPARE_SIZE];

        for (uint64_t end = start + length, part; start < end; start += part) {
                Reason damage = REASON_INIT;
                int rc;

                part = min_u64(end - start, COMPARE_SIZE);
                if (parent_lacks(survey, start, part))
                        continue;
                rc = readers_read(survey->readers, now, part, start, !readers_may_skip(survey->readers), reterr);
                if (rc < 0 && rc != -ECANCELED && rc != -ENOMEM && readers_may_skip(survey->readers))
                        continue;
                if (rc < 0)
                        return rc;
                rc = chain_read(survey->parent, then, part, start, &damage);
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

static int compare_head(const Survey *survey, Reason *why, Reason *reterr) {
        for (size_t i = 0; i < survey->head.count; i++) {
                const SourceExtent *extent = &survey->head.items[i];
                int rc = compare(survey, extent->start, extent->length, why, reterr);

                if (rc <= 0)
                        return rc;
        }
        return 1;
}

static int compare_starts(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *) a, y = *(const uint64_t *) b;

        return (x > y) - (x < y);
}

static int compare_samples(Survey *survey, Reason *why, Reason *reterr) {
        Samples *samples = &survey->samples;

        if (samples->offered == 0)
                return 1;
        qsort(samples->starts, SURVEY_SAMPLES, sizeof *samples->starts, compare_starts);
        for (size_t i = 0; i < SURVEY_SAMPLES; i++) {
                int rc;

                if (i > 0 && samples->starts[i] == samples->starts[i - 1])
                        continue;
                rc = compare(survey, samples->starts[i], survey->disk->block_size, why, reterr);
                if (rc <= 0)
                        return rc;
        }
        return 1;
}

int survey_disk(Readers *readers, const PlanDisk *disk, Chain *parent, bool parent_map, Outline *outline,
                SurveyTotals *ret, Reason *why, Reason *reterr) {
        CLEANUP(survey_clear) Survey survey = {
                .readers = readers,
                .disk = disk,
                .parent = parent,
                .parent_map = parent_map,
                .held = { .is_zero = parent_is_zero, .context = parent },
        };
        int rc;

        if (getrandom(&survey.samples.random, sizeof survey.samples.random, 0) != sizeof survey.samples.random)
                return fail_errno(reterr, -errno, "no random numbers");
        rc = walk(&survey, outline, ret, reterr);
        if (rc < 0 || !parent || disk->compared)
                return rc < 0 ? rc : 1;
        rc = compare_head(&survey, why, reterr);
        if (rc <= 0)
                return rc;
        return compare_samples(&survey, why, reterr);
}
