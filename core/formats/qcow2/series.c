#include "formats/qcow2/series.h"

#include <errno.h>
#include <string.h>

static struct timespec time_of(const Image *image) {
        return image->said.time.tv_sec ? image->said.time : image->st.st_mtim;
}

/* By series, and in it by age. */
static int compare_ages(const void *a, const void *b) {
        const Image *x = *(Image *const *) a, *y = *(Image *const *) b;
        struct timespec s = time_of(x), t = time_of(y);
        int order = strcmp(x->said.series, y->said.series);

        if (order == 0)
                order = (s.tv_sec > t.tv_sec) - (s.tv_sec < t.tv_sec);
        if (order == 0)
                order = (s.tv_nsec > t.tv_nsec) - (s.tv_nsec < t.tv_nsec);
        return order ?: strcmp(x->name, y->name);
}

/* libvirt gives the VM's disk as the backing file: the series is called after it. */
static bool is_incremental(const Image *image) {
        const char *backing = image->header.backing, *slash = strrchr(backing, '/');

        return image->said.incremental || (*backing && strcmp(slash ? slash + 1 : backing, image->said.series) == 0);
}

/* One image of a series; last: the one before that can be a base, or NULL. */
static int link_to_last(Image *image, Image *last) {
        if (!last || !is_incremental(image))
                return 0;
        image->backing = last;
        return image_note(image, "the file does not tell what it is based on: taken for that is %s, the one before it",
                          last->name);
}

int family_link_series(Family *family) {
        CLEANUP(freep) Image **images = calloc(family->count + 1, sizeof(Image *));
        Image *last = NULL;
        size_t count = 0;
        int rc = 0;

        if (!images)
                return -ENOMEM;
        for (size_t i = 0; i < family->count; i++)
                if (family->images[i]->said.series && !family->images[i]->raw)
                        images[count++] = family->images[i];
        if (count > 1)
                qsort(images, count, sizeof *images, compare_ages);
        for (size_t i = 0; rc >= 0 && i < count; i++) {
                if (last && strcmp(last->said.series, images[i]->said.series) != 0)
                        last = NULL;
                rc = link_to_last(images[i], last);
                if (last || !is_incremental(images[i]))
                        last = images[i];
        }
        return rc;
}
