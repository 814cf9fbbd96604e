#include "util/strings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void strings_free(Strings *strings) {
        for (size_t i = 0; i < strings->count; i++)
                free(strings->items[i]);
        free(strings->items);
        *strings = (Strings) { 0 };
}

int strings_add(Strings *strings, const char *text) {
        char *copy;

        /* There is room up to the next power of two. */
        if ((strings->count & (strings->count - 1)) == 0) {
                char **grown = reallocarray(strings->items, strings->count ? strings->count * 2 : 1, sizeof *grown);

                if (!grown)
                        return -ENOMEM;
                strings->items = grown;
        }
        copy = strdup(text);
        if (!copy)
                return -ENOMEM;
        strings->items[strings->count++] = copy;
        return 0;
}

static int compare(const void *a, const void *b) {
        return strcmp(*(char *const *) a, *(char *const *) b);
}

void strings_sort(Strings *strings) {
        if (strings->count > 1)
                qsort(strings->items, strings->count, sizeof *strings->items, compare);
}

char **strings_find(const Strings *sorted, const char *text) {
        return sorted->count > 0 ? bsearch(&text, sorted->items, sorted->count, sizeof *sorted->items, compare) : NULL;
}
