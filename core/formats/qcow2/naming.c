#include "formats/qcow2/naming.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

static bool is_separator(char c) {
        return !isalnum((unsigned char) c);
}

static unsigned two_digits(const char *text) {
        return (unsigned) (text[0] - '0') * 10 + (unsigned) (text[1] - '0');
}

/* A year of this age, perhaps with month and day; or ten digits and more: with a time, or seconds. Other numbers tell disks
 * from each other. */
static bool is_date(const char *digits, size_t count) {
        if (count >= 10)
                return true;
        if (count < 4 || count % 2 != 0 || (strncmp(digits, "19", 2) != 0 && strncmp(digits, "20", 2) != 0))
                return false;
        return (count < 6 || (two_digits(digits + 4) >= 1 && two_digits(digits + 4) <= 12)) &&
               (count < 8 || (two_digits(digits + 6) >= 1 && two_digits(digits + 6) <= 31));
}

/* Where a date, or a time in seconds, begins that the text ends with; 0: there is none. Other chains may have less or more
 * of it in common. */
static size_t find_date(const char *text, size_t length) {
        size_t found = 0;

        for (size_t end = length; end > 0;) {
                size_t start;

                while (end > 0 && is_separator(text[end - 1]))
                        end--;
                for (start = end; start > 0 && isdigit((unsigned char) text[start - 1]); start--)
                        ;
                if (start == end || (start > 0 && !is_separator(text[start - 1])))
                        break;
                if (is_date(text + start, end - start))
                        found = start;
                end = start;
        }
        return found;
}

/* What all stems of a chain begin with. */
typedef struct Common {
        const char *text; /* of one of the names; NULL: nothing seen yet */
        size_t length;
        bool at_word;     /* it ends where a word does in all of them */
} Common;

static void take_common(Common *common, const Image *image) {
        size_t length = image_stem_length(image->name), same = 0;

        if (!common->text) {
                *common = (Common) { image->name, length, true };
                return;
        }
        while (same < length && same < common->length && image->name[same] == common->text[same])
                same++;
        if (same < common->length)
                common->at_word = is_separator(common->text[same]);
        if (same < length)
                common->at_word &= is_separator(image->name[same]);
        common->length = same;
}

/* Neither within a word nor within a date. */
static size_t cut_common(const Common *common) {
        size_t length = common->length, date;

        while (!common->at_word && length > 0 && !is_separator(common->text[length - 1]))
                length--;
        date = find_date(common->text, length);
        return date > 0 ? date : length;
}

/* What a name has beyond the beginning that it shares. */
static char *rest_of(const char *name, size_t common) {
        size_t end = image_stem_length(name);

        while (common < end && is_separator(name[common]))
                common++;
        return strndup(name + common, end - common);
}

static char *base_disk(const Image *base, size_t common) {
        size_t length = image_stem_length(base->name);

        /* With a date the stem would be another disk each day. */
        if (find_date(base->name, length) == common && common > 0)
                length = common;
        while (length > 1 && is_separator(base->name[length - 1]))
                length--;
        return strndup(base->name, length);
}

static int name_image(Image *image, const Common *common) {
        size_t cut = cut_common(common);

        image->label = image->said.label ? strdup(image->said.label) : rest_of(image->name, cut);
        if (image->base == image)
                image->disk = image->said.disk ? strdup(image->said.disk) : base_disk(image, cut);
        return image->label && (image->base != image || image->disk) ? 0 : -ENOMEM;
}

static int compare_names(const void *a, const void *b) {
        const Image *x = *(Image *const *) a, *y = *(Image *const *) b;
        int order = strcmp(x->base->disk, y->base->disk);

        if (order == 0)
                order = strcmp(x->label, y->label);
        return order ?: strcmp(x->path, y->path);
}

static int replace_text(char **text, const char *by) {
        char *copy = strdup(by);

        if (!copy)
                return -ENOMEM;
        for (char *c = copy; *c; c++)
                if (*c == '/')
                        *c = '_';
        free(*text);
        *text = copy;
        return 0;
}

/* Gives longer names to what is called the same: 0 where nothing was, 1 where something was. */
static int tell_apart(Image **sorted, size_t count, bool by_path) {
        int rc = 0;

        qsort(sorted, count, sizeof *sorted, compare_names);
        for (size_t i = 1, same = 0; rc >= 0 && i < count; i++) {
                Image *one = sorted[same], *other = sorted[i];
                int bad;

                if (strcmp(one->base->disk, other->base->disk) != 0 || strcmp(one->label, other->label) != 0) {
                        same = i;
                        continue;
                }
                if (one->base == other->base)
                        bad = replace_text(&other->label, other->path);
                else
                        bad = replace_text(&other->base->disk, by_path ? other->base->path : other->base->name);
                rc = bad < 0 ? bad : 1;
                same = i;
        }
        return rc;
}

static void free_commons(Common **commons) {
        free(*commons);
}

int family_name(Family *family) {
        CLEANUP(free_commons) Common *commons = calloc(family->count + 1, sizeof *commons);
        CLEANUP(freep) Image **sorted = calloc(family->count + 1, sizeof(Image *));
        int rc = commons && sorted ? 0 : -ENOMEM;

        /* The number of each base's place finds what its chain has in common. */
        for (size_t i = 0; rc >= 0 && i < family->count; i++)
                family->images[i]->walk = i;
        for (size_t i = 0; rc >= 0 && i < family->count; i++)
                take_common(&commons[family->images[i]->base->walk], family->images[i]);
        for (size_t i = 0; rc >= 0 && i < family->count; i++)
                rc = name_image(family->images[i], &commons[family->images[i]->base->walk]);
        if (rc < 0 || family->count == 0)
                return rc;
        memcpy(sorted, family->images, family->count * sizeof(Image *));
        rc = 1;
        for (unsigned pass = 0; rc > 0 && pass < 4; pass++)
                rc = tell_apart(sorted, family->count, pass > 0);
        return rc < 0 ? rc : 0;
}
