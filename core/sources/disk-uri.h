/* core/sources/disk-uri.h - what the URIs of disks have in common: parameters of ours behind a "?".
 *
 * Threads: any. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "util/reason.h"

typedef struct DiskUriParameter {
        const char *name;
        char **value; /* NULL until it is found */
        bool is_path; /* a relative one becomes absolute */
} DiskUriParameter;

/* query: what is behind the "?"; NULL: nothing is. -EINVAL for a parameter that is not known, that is there twice or that
 * is empty. The caller frees the values, also after a failure. */
int disk_uri_take(const char *query, const DiskUriParameter *parameters, size_t count, Reason *reterr);

/* base and the parameters that have a value. The caller frees *ret. -ENOMEM. */
int disk_uri_format(const char *base, const DiskUriParameter *parameters, size_t count, char **ret);

/* *path with the current directory in front where it is relative. */
int disk_uri_make_absolute(char **path, Reason *reterr);

/* The value of `timeout`, in seconds; 0 for NULL. -EINVAL. */
int disk_uri_timeout(const char *text, unsigned *ret, Reason *reterr);
