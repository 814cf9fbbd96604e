/* core/capture/survey.h - looks over a disk before it is copied: how much there is to read, and whether what the bitmap
 * calls clean is what the parent has.
 *
 * The first MiB (where partition tables and most file systems' heads are) and random blocks, as far as they are clean,
 * are read from both. Swapped and replaced disks are found so, whose bitmaps are clean and whose content is another. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "capture/outline.h"
#include "capture/plan.h"
#include "capture/readers.h"
#include "chain/chain.h"

#define SURVEY_SAMPLES 64

typedef struct SurveyTotals {
        uint64_t read;    /* bytes that a capture reads, as far as the bitmap tells */
        uint64_t changed; /* those, and what is stored as zeroes */
} SurveyTotals;

/* parent NULL: only counts. parent_map: the parent's map is asked as well, where the parent is known not to have
 * all of it, or the count has to be exact: what it lacks is taken. Returns 1 where they are the same, 0 where not: why then
 * says what differs. A disk that is compared anyway is not looked at for that, nor what the source cannot deliver where that
 * is to be skipped. outline: gets what the source told, as far as there is room. */
int survey_disk(Readers *readers, const PlanDisk *disk, Chain *parent, bool parent_map, Outline *outline,
                SurveyTotals *ret, Reason *why, Reason *reterr);
