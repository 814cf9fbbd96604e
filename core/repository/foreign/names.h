/* core/repository/foreign/names.h - names for what other tools name as they like. Threads: any. */
#pragma once

#include <stddef.h>

#include "repository/foreign/group.h"

/* The text as a name that file_name_is_valid() accepts, of at most max bytes: what cannot be in one becomes "_". NULL: no
 * memory. */
char *name_clean(const char *text, size_t max);

/* Puts numbers behind names that are there already, each of which the caller owns. -ENOMEM. */
int names_number_doubles(char ***names, size_t count);

/* A name for each VM, no two alike. root_name: of the root's own directory. The caller frees the names in ret, also after a
 * failure. -ENOMEM. */
int names_of_vms(const Groups *groups, const char *root_name, char **ret);
