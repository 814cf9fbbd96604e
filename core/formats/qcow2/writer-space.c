#include "formats/qcow2/writer-space.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/cleanup.h"

#define AHEAD (UINT64_C(256) << 20 >> WRITER_CLUSTER_BITS)  /* clusters that are set aside at once */
#define BEYOND (UINT64_C(16) << 20 >> WRITER_CLUSTER_BITS)  /* the same, where more is needed than was expected */
#define WORD_BITS 64

void writer_space_clear(WriterSpace *space) {
        free(space->used);
        space->used = NULL;
}

void writer_space_use(WriterSpace *space, uint64_t cluster) {
        space->used[cluster / WORD_BITS] |= UINT64_C(1) << cluster % WORD_BITS;
}

static bool is_used(const WriterSpace *space, uint64_t cluster) {
        return space->used[cluster / WORD_BITS] >> cluster % WORD_BITS & 1;
}

void writer_space_drop(WriterSpace *space, uint64_t cluster) {
        space->used[cluster / WORD_BITS] &= ~(UINT64_C(1) << cluster % WORD_BITS);
        space->lossy = true;
}

static int make_bits(WriterSpace *space, uint64_t end, Reason *reterr) {
        uint64_t capacity = round_up(max_u64(end, min_u64(2 * space->capacity, space->plan->limit)), WORD_BITS), *used;

        if (end <= space->capacity)
                return 0;
        used = reallocarray(space->used, capacity / WORD_BITS, sizeof *used);
        if (!used)
                return fail_oom(reterr);
        memset(used + space->capacity / WORD_BITS, 0, (capacity - space->capacity) / 8);
        space->used = used;
        space->capacity = capacity;
        return 0;
}

static int set_end(WriterSpace *space, uint64_t end, Reason *reterr) {
        if (ftruncate(space->file->fd, (off_t) (end << WRITER_CLUSTER_BITS)) < 0)
                return fail_errno(reterr, -errno, "cannot give %s a size of %llu bytes", space->name,
                                  (unsigned long long) end << WRITER_CLUSTER_BITS);
        space->end = end;
        return 0;
}

static int set_aside(const WriterSpace *space, uint64_t end) {
        return direct_set_aside(space->file, space->end << WRITER_CLUSTER_BITS, (end - space->end) << WRITER_CLUSTER_BITS);
}

/* Where there is not enough room to set aside, writes find out when there is none at all. */
static int extend(WriterSpace *space, uint64_t needed, Reason *reterr) {
        uint64_t expected = space->plan->expected, end;
        int rc;

        if (needed <= space->end)
                return 0;
        end = needed < expected ? max_u64(needed, min_u64(space->end + AHEAD, expected)) : needed + BEYOND;
        rc = make_bits(space, end, reterr);
        if (rc < 0)
                return rc;
        if (space->ahead && set_aside(space, end) == 0) {
                space->end = end;
                return 0;
        }
        if (space->ahead) /* what was set aside all the same is given back */
                rc = set_end(space, space->end, reterr);
        space->ahead = false;
        return rc < 0 ? rc : set_end(space, end, reterr);
}

static int write_cluster(const WriterSpace *space, const unsigned char *bytes, uint64_t cluster, Reason *reterr) {
        int rc = direct_write(space->file, bytes, WRITER_CLUSTER, cluster << WRITER_CLUSTER_BITS);

        return rc < 0 ? fail_errno(reterr, rc, "cannot write %s", space->name) : 0;
}

/* Takes the room for what is written at the end, so that it is found out now where there is none. */
static int hold(const WriterSpace *space, uint64_t start, uint64_t end, Reason *reterr) {
        CLEANUP(freep) unsigned char *zeroes = aligned_alloc(DIRECT_GRAIN, WRITER_CLUSTER);
        int rc = 0;

        if (!zeroes)
                return fail_oom(reterr);
        memset(zeroes, 0, WRITER_CLUSTER);
        for (uint64_t cluster = start; rc == 0 && cluster < end; cluster++)
                rc = write_cluster(space, zeroes, cluster, reterr);
        return rc;
}

int writer_space_begin(const WriterPlan *plan, const DirectFile *file, const char *name, uint64_t file_size,
                       WriterSpace *ret, Reason *reterr) {
        WriterSpace *space = ret;
        int rc;

        *space = (WriterSpace) { .plan = plan, .file = file, .name = name, .next = plan->start };
        space->end = file_size >> WRITER_CLUSTER_BITS;
        space->ahead = true;
        rc = make_bits(space, space->end, reterr);
        if (rc == 0)
                rc = extend(space, plan->start, reterr);
        if (rc == 0 && file_size == 0)
                rc = hold(space, plan->blocks_start, plan->start, reterr);
        if (rc < 0)
                return rc;
        for (uint64_t cluster = 0; cluster < plan->start; cluster++)
                writer_space_use(space, cluster);
        for (uint64_t block = 1; block * WRITER_COUNTS < space->end; block++)
                writer_space_use(space, block * WRITER_COUNTS);
        return 0;
}

bool writer_space_claim(WriterSpace *space, uint64_t cluster) {
        if (cluster >= space->end || is_used(space, cluster))
                return false;
        writer_space_use(space, cluster);
        space->next = max_u64(space->next, cluster + 1);
        space->lossy = true; /* nothing may refer to what lies in between */
        return true;
}

int writer_space_trim(WriterSpace *space, Reason *reterr) {
        return set_end(space, space->next, reterr);
}

int writer_space_take(WriterSpace *space, uint64_t wanted, uint64_t *ret_first, uint64_t *ret_count, Reason *reterr) {
        bool meets_block = space->next % WRITER_COUNTS == 0;
        uint64_t first = space->next + meets_block;
        uint64_t count = min_u64(wanted, round_up(first, WRITER_COUNTS) - first);
        int rc;

        if (first + count > space->plan->limit)
                return fail(reterr, -EFBIG, "%s becomes larger than a qcow2 image can be", space->name);
        rc = extend(space, first + count, reterr);
        if (rc < 0)
                return rc;
        if (meets_block) {
                rc = hold(space, space->next, first, reterr);
                if (rc < 0)
                        return rc;
                writer_space_use(space, space->next);
        }
        space->next = first + count;
        *ret_first = first;
        *ret_count = count;
        return 0;
}

/* What is not in use of the clusters [start, end). An error is no reason to end. */
static void give_back(const WriterSpace *space, uint64_t start, uint64_t end) {
        for (uint64_t at = start, run; at < end; at = run) {
                bool used = is_used(space, at);

                for (run = at + 1; run < end && is_used(space, run) == used; run++)
                        ;
                if (!used)
                        (void) fallocate(space->file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                                         (off_t) (at << WRITER_CLUSTER_BITS), (off_t) ((run - at) << WRITER_CLUSTER_BITS));
        }
}

static int write_block(WriterSpace *space, uint64_t number, uint64_t block, unsigned char *bytes, Reason *reterr) {
        uint64_t start = number * WRITER_COUNTS, end = min_u64(start + WRITER_COUNTS, space->next);

        memset(bytes, 0, WRITER_CLUSTER);
        for (uint64_t cluster = start; cluster < end; cluster++)
                store_be16(bytes + 2 * (cluster - start), is_used(space, cluster));
        if (space->lossy)
                give_back(space, start, end);
        return write_cluster(space, bytes, block, reterr);
}

int writer_space_count(WriterSpace *space, Reason *reterr) {
        CLEANUP(freep) unsigned char *blocks = aligned_alloc(DIRECT_GRAIN, WRITER_CLUSTER),
                                     *bytes = aligned_alloc(DIRECT_GRAIN, WRITER_CLUSTER);
        uint64_t count = divide_up(space->next, WRITER_COUNTS);
        int rc = 0;

        if (!blocks || !bytes)
                return fail_oom(reterr);
        for (uint64_t first = 0; rc == 0 && first < count; first += WRITER_ENTRIES) {
                uint64_t end = min_u64(first + WRITER_ENTRIES, count);

                memset(blocks, 0, WRITER_CLUSTER);
                for (uint64_t number = first; rc == 0 && number < end; number++) {
                        uint64_t block = writer_plan_block(space->plan, number);

                        store_be64(blocks + 8 * (number - first), block << WRITER_CLUSTER_BITS);
                        rc = write_block(space, number, block, bytes, reterr);
                }
                if (rc == 0)
                        rc = write_cluster(space, blocks, space->plan->blocks_start + first / WRITER_ENTRIES, reterr);
        }
        return rc;
}
