#include "sources/imageio-extents.h"

#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <string.h>

#define ENTRY_MAX 512                /* bytes of JSON; the server's own have about 80 */
#define TEXT_MAX (UINT64_C(64) << 30) /* bytes: no server goes on for ever */

typedef enum State {
        BEFORE_LIST,
        BEFORE_FIRST, /* an entry or the end */
        BEFORE_ENTRY,
        IN_ENTRY,
        IN_STRING,    /* of an entry */
        IN_ESCAPE,    /* of a string */
        AFTER_ENTRY,
        AFTER_LIST,
} State;

struct ImageioExtents {
        const char *flag;
        bool safe;
        size_t changes_max;
        uint64_t taken; /* bytes */
        State state;
        char entry[ENTRY_MAX];
        size_t entry_length;

        /* Run i ends at ends[i], begins where the one before ends, and has the flag `first` if i is even, else not. */
        uint64_t *ends;
        size_t count, capacity;
        bool first;
};

int imageio_extents_new(const char *flag, bool safe, size_t changes_max, ImageioExtents **ret) {
        ImageioExtents *list = calloc(1, sizeof *list);

        if (!list)
                return -ENOMEM;
        list->flag = flag;
        list->safe = safe;
        list->changes_max = changes_max;
        *ret = list;
        return 0;
}

ImageioExtents *imageio_extents_free(ImageioExtents *list) {
        if (list)
                free(list->ends);
        free(list);
        return NULL;
}

static bool run_flag(const ImageioExtents *list, size_t run) {
        return list->first ^ (run % 2);
}

uint64_t imageio_extents_end(const ImageioExtents *list) {
        return list->count > 0 ? list->ends[list->count - 1] : 0;
}

static int add(ImageioExtents *list, uint64_t end, bool flag) {
        /* The last run is the one that takes all that there is no room for. */
        if (list->count >= list->changes_max)
                flag = list->safe;
        if (list->count > 0 && run_flag(list, list->count - 1) == flag) {
                list->ends[list->count - 1] = end;
                return 0;
        }
        if (list->count == list->capacity) {
                size_t capacity = list->capacity ? list->capacity * 2 : 64;
                uint64_t *grown = reallocarray(list->ends, capacity, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                list->ends = grown;
                list->capacity = capacity;
        }
        if (list->count == 0)
                list->first = flag;
        list->ends[list->count++] = end;
        return 0;
}

static int bad(Reason *reterr, const char *what) {
        return fail(reterr, -EPROTO, "the server's list of extents %s", what);
}

static int take_entry(ImageioExtents *list, Reason *reterr) {
        json_t *entry = json_loadb(list->entry, list->entry_length, JSON_REJECT_DUPLICATES, NULL);
        const json_t *start = json_object_get(entry, "start"), *length = json_object_get(entry, "length");
        const json_t *flag = json_object_get(entry, list->flag);
        uint64_t at = imageio_extents_end(list);
        int64_t end;
        int rc = 0;

        if (!entry)
                rc = bad(reterr, "is no JSON");
        else if (!json_is_integer(start) || !json_is_integer(length) || !json_is_boolean(flag))
                rc = fail(reterr, -EPROTO, "the server's list of extents has one that lacks start, length or %s",
                          list->flag);
        else if (json_integer_value(start) < 0 || (uint64_t) json_integer_value(start) != at)
                rc = bad(reterr, "has gaps or overlaps");
        else if (json_integer_value(length) <= 0 || __builtin_add_overflow((int64_t) at, json_integer_value(length), &end))
                rc = bad(reterr, "has one of a length that cannot be");
        else if (add(list, (uint64_t) end, json_is_true(flag)) < 0)
                rc = fail_oom(reterr);
        json_decref(entry);
        return rc;
}

static int keep(ImageioExtents *list, char c, Reason *reterr) {
        if (list->entry_length == sizeof list->entry)
                return bad(reterr, "has an entry that is too long");
        list->entry[list->entry_length++] = c;
        return 0;
}

/* A byte within an entry: only finds its end, the rest is for a real parser. */
static int take_inside(ImageioExtents *list, char c, Reason *reterr) {
        int rc = keep(list, c, reterr);

        if (rc < 0)
                return rc;
        if (list->state == IN_ESCAPE)
                list->state = IN_STRING;
        else if (list->state == IN_STRING)
                list->state = c == '\\' ? IN_ESCAPE : c == '"' ? IN_ENTRY : IN_STRING;
        else if (c == '"')
                list->state = IN_STRING;
        else if (c == '{')
                return bad(reterr, "has an entry within another");
        else if (c == '}') {
                list->state = AFTER_ENTRY;
                return take_entry(list, reterr);
        }
        return 0;
}

static int take_between(ImageioExtents *list, char c, Reason *reterr) {
        bool may_begin = list->state == BEFORE_FIRST || list->state == BEFORE_ENTRY;
        bool may_end = list->state == BEFORE_FIRST || list->state == AFTER_ENTRY;

        if (c == ' ' || c == '\n' || c == '\r' || c == '\t')
                return 0;
        if (c == '[' && list->state == BEFORE_LIST)
                list->state = BEFORE_FIRST;
        else if (c == '{' && may_begin) {
                list->state = IN_ENTRY;
                list->entry_length = 0;
                return keep(list, c, reterr);
        } else if (c == ',' && list->state == AFTER_ENTRY)
                list->state = BEFORE_ENTRY;
        else if (c == ']' && may_end)
                list->state = AFTER_LIST;
        else
                return bad(reterr, "is no JSON list of objects");
        return 0;
}

int imageio_extents_take(ImageioExtents *list, const char *bytes, size_t length, Reason *reterr) {
        list->taken += length;
        if (list->taken > TEXT_MAX)
                return bad(reterr, "has no end");
        for (size_t i = 0; i < length; i++) {
                bool inside = list->state == IN_ENTRY || list->state == IN_STRING || list->state == IN_ESCAPE;
                int rc = inside ? take_inside(list, bytes[i], reterr) : take_between(list, bytes[i], reterr);

                if (rc < 0)
                        return rc;
        }
        return 0;
}

int imageio_extents_finish(ImageioExtents *list, Reason *reterr) {
        return list->state == AFTER_LIST ? 0 : bad(reterr, "ends before it is complete");
}

bool imageio_extents_at(const ImageioExtents *list, uint64_t offset, uint64_t *ret_end) {
        size_t low = 0, high = list->count;

        assert(offset < imageio_extents_end(list));
        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (list->ends[middle] > offset)
                        high = middle;
                else
                        low = middle + 1;
        }
        *ret_end = list->ends[low];
        return run_flag(list, low);
}
