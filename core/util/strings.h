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
