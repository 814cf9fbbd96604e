#include "restore/rescue.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>

#include "util/bytes.h"

#define STEP (64u << 10)  /* bytes that are tried at once where not all can be read: most often a block */
#define STEP_MIN 4096u

typedef struct Skipped {
        uint64_t start, length;
        Reason why;
} Skipped;

struct Rescue {
        Chain *chain;
        const char *path;
        bool skip;
        uint64_t told;        /* bytes */
        pthread_mutex_t lock; /* of what follows */
        Skipped *skipped;     /* not told of yet */
        size_t count, capacity;
};

int rescue_new(Chain *chain, const char *path, bool skip, uint64_t before, Rescue **ret, Reason *reterr) {
        Rescue *rescue = calloc(1, sizeof *rescue);

        if (!rescue)
                return fail_oom(reterr);
        rescue->chain = chain;
        rescue->path = path;
        rescue->skip = skip;
        rescue->told = before;
        pthread_mutex_init(&rescue->lock, NULL);
        *ret = rescue;
        return 0;
}

Rescue *rescue_free(Rescue *rescue) {
        if (!rescue)
                return NULL;
        pthread_mutex_destroy(&rescue->lock);
        free(rescue->skipped);
        free(rescue);
        return NULL;
}

static int record(Rescue *rescue, uint64_t start, uint64_t length, const Reason *why, Reason *reterr) {
        int rc = 0;

        pthread_mutex_lock(&rescue->lock);
        if (rescue->count == rescue->capacity) {
                size_t capacity = rescue->capacity ? rescue->capacity * 2 : 16;
                Skipped *grown = reallocarray(rescue->skipped, capacity, sizeof *grown);

                if (grown) {
                        rescue->skipped = grown;
                        rescue->capacity = capacity;
                } else {
                        rc = fail_oom(reterr);
                }
        }
        if (rc == 0)
                rescue->skipped[rescue->count++] = (Skipped) { start, length, *why };
        pthread_mutex_unlock(&rescue->lock);
        return rc;
}

static int fail_range(const Rescue *rescue, const Reason *why, uint64_t offset, uint64_t length, Reason *reterr) {
        return fail(reterr, -EIO, "%s: %" PRIu64 " bytes at %" PRIu64 " cannot be read: %s", rescue->path, length, offset,
                    why->text);
}

int rescue_explain(Rescue *rescue, uint64_t offset, uint64_t length, Reason *reterr) {
        Reason why = REASON_INIT;
        char byte;

        if (chain_read(rescue->chain, &byte, 1, offset, &why) == 0)
                fail(&why, -EIO, "now it can");
        return fail_range(rescue, &why, offset, length, reterr);
}

/* The part from offset on of which the map says one thing, or which is tried at once. */
static int measure_part(const Rescue *rescue, uint64_t offset, uint64_t end, uint64_t *ret, Reason *reterr) {
        ChainExtent extent;
        int rc = chain_extent_at(rescue->chain, offset, &extent, reterr);

        if (rc < 0)
                return rc;
        *ret = min_u64(end, extent.start + extent.length) - offset;
        if (extent.state == EXTENT_DATA)
                *ret = min_u64(*ret, round_down(offset, STEP) + STEP - offset);
        return extent.state == EXTENT_UNREADABLE;
}

static int skip(Rescue *rescue, void *buffer, size_t length, uint64_t offset, const Reason *why, bool account,
                Reason *reterr) {
        if (!rescue->skip)
                return fail_range(rescue, why, offset, length, reterr);
        memset(buffer, 0, length);
        return account ? record(rescue, offset, length, why, reterr) : 0;
}

/* Of a part that cannot be read as a whole: smaller and smaller pieces. */
static int try_small(Rescue *rescue, unsigned char *buffer, size_t length, uint64_t offset, bool account, Reason *reterr) {
        for (size_t done = 0; done < length;) {
                size_t part = min_u64(length - done, round_down(offset + done, STEP_MIN) + STEP_MIN - (offset + done));
                Reason why = REASON_INIT;
                int rc = chain_read(rescue->chain, buffer + done, part, offset + done, &why);

                if (rc == -ENOMEM)
                        return fail_oom(reterr);
                if (rc < 0)
                        rc = skip(rescue, buffer + done, part, offset + done, &why, account, reterr);
                if (rc < 0)
                        return rc;
                done += part;
        }
        return 0;
}

static int read_range(Rescue *rescue, void *buffer, size_t length, uint64_t offset, bool account, Reason *reterr) {
        unsigned char *to = buffer;
        uint64_t end = offset + length;
        Reason why = REASON_INIT;
        int rc;

        rc = chain_read(rescue->chain, buffer, length, offset, &why);
        if (rc == -ENOMEM)
                return fail_oom(reterr);
        while (rc < 0 && offset < end) {
                uint64_t part;
                int known = measure_part(rescue, offset, end, &part, reterr);

                if (known < 0)
                        return known;
                why = REASON_INIT;
                rc = chain_read(rescue->chain, to, part, offset, &why);
                if (rc == -ENOMEM)
                        return fail_oom(reterr);
                if (rc < 0 && (known || !rescue->skip))
                        rc = skip(rescue, to, part, offset, &why, account, reterr);
                else if (rc < 0)
                        rc = try_small(rescue, to, part, offset, account, reterr);
                if (rc < 0)
                        return rc;
                to += part;
                offset += part;
                rc = offset < end ? -EIO : 0; /* the rest is still to be tried */
        }
        return rc;
}

int rescue_read(Rescue *rescue, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        return read_range(rescue, buffer, length, offset, true, reterr);
}

int rescue_read_again(Rescue *rescue, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        return read_range(rescue, buffer, length, offset, false, reterr);
}

static int compare_skipped(const void *a, const void *b) {
        const Skipped *left = a, *right = b;

        return left->start < right->start ? -1 : left->start > right->start;
}

void rescue_tell(Rescue *rescue, uint64_t to, const char *disk,
                 void (*tell)(void *context, const char *disk, uint64_t start, uint64_t length, const Reason *why),
                 void *context) {
        size_t taken = 0;

        pthread_mutex_lock(&rescue->lock);
        if (rescue->count > 0)
                qsort(rescue->skipped, rescue->count, sizeof *rescue->skipped, compare_skipped);
        while (taken < rescue->count && rescue->skipped[taken].start < to) {
                Skipped whole = rescue->skipped[taken++];

                /* Neighbours are one, though each was tried by itself. */
                while (taken < rescue->count && rescue->skipped[taken].start == whole.start + whole.length)
                        whole.length += rescue->skipped[taken++].length;
                rescue->told += whole.length;
                if (tell)
                        tell(context, disk, whole.start, whole.length, &whole.why);
        }
        if (taken > 0)
                memmove(rescue->skipped, rescue->skipped + taken, (rescue->count - taken) * sizeof *rescue->skipped);
        rescue->count -= taken;
        pthread_mutex_unlock(&rescue->lock);
}

uint64_t rescue_told(const Rescue *rescue) {
        return rescue->told;
}

uint64_t rescue_total(const Rescue *rescue) {
        uint64_t total = rescue->told;

        for (size_t i = 0; i < rescue->count; i++)
                total += rescue->skipped[i].length;
        return total;
}
