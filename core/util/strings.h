/* core/util/strings.h - a list of texts that it owns. Threads: belongs to one. */
#pragma once

#include <stddef.h>

#include "util/cleanup.h"

typedef struct Strings {
        char **items;
        size_t count;
} Strings;

/* Appends a copy; -ENOMEM. Lists grow by this alone. */
int strings_add(Strings *strings, const char *text);
void strings_free(Strings *strings); /* the list is empty then */

/* By bytes, as strcmp(3) does. */
void strings_sort(Strings *strings);
/* The item of a sorted list that is this text; NULL: there is none. O(log n). */
char **strings_find(const Strings *sorted, const char *text);
