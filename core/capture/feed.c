#include "capture/feed.h"

#include "capture/parent.h"
#include "util/bytes.h"

void feed_init(Feed *feed, const PlanDisk *disk, Chain *parent, Readers *readers, Outline *outline, size_t chunk_size) {
        *feed = (Feed) {
                .disk = disk,
                .readers = readers,
                .outline = outline,
                .chunk_size = chunk_size,
                .parent = { .is_zero = parent_is_zero, .context = parent },
        };
}

void feed_clear(Feed *feed) {
        plan_clear(&feed->plan);
        source_extents_clear(&feed->source_extents);
        parent_extents_clear(&feed->parent.extents);
}

static int plan_next_window(Feed *feed, Reason *reterr) {
        Chain *parent = feed->parent.context;
        uint64_t start = feed->window_end;
        uint64_t length = min_u64(WINDOW_SIZE, feed->disk->size - start);
        int rc = 0;

        if (!feed->outline || !outline_take(feed->outline, start, length, &feed->source_extents))
                rc = readers_extents(feed->readers, start, length, &feed->source_extents, reterr);
        if (rc < 0)
                return rc;
        if (parent) {
                rc = parent_extents_load(parent, start, start + length, &feed->parent.extents);
                if (rc < 0)
                        return fail_errno(reterr, rc, "cannot read the parent's map");
        }
        rc = plan_window(feed->disk, start, length, &feed->source_extents, parent ? &feed->parent : NULL, &feed->plan);
        if (rc < 0)
                return fail_oom(reterr);
        feed->parent_data += feed->plan.parent_data;
        feed->item = 0;
        feed->item_done = 0;
        feed->window_end = start + length;
        return 0;
}

int feed_next(Feed *feed, Chunk *ret, Reason *reterr) {
        const PlanItem *item;

        while (feed->item == feed->plan.count) {
                int rc;

                if (feed->window_end == feed->disk->size)
                        return 0;
                rc = plan_next_window(feed, reterr);
                if (rc < 0)
                        return rc;
        }
        item = &feed->plan.items[feed->item];
        *ret = (Chunk) { item->start + feed->item_done, item->length - feed->item_done, item->zero };
        if (!ret->zero)
                ret->length = min_u64(ret->length, feed->chunk_size);
        feed->item_done += ret->length;
        if (feed->item_done == item->length) {
                feed->item++;
                feed->item_done = 0;
        }
        return 1;
}
