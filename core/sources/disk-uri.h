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

/* The parameters that all kinds have. */
typedef struct DiskUriCommon {
        char *bitmap;       /* since which changes are told; or NULL */
        char *checkpoint;   /* which a later capture may start from; or NULL */
        char *image;        /* what stays the same as long as the disk is the same one; or NULL */
        char *timeout;      /* as said, or NULL */
        unsigned timeout_s; /* seconds that the server may say nothing; 0: not said */
} DiskUriCommon;
#define DISK_URI_COMMON_PARAMETERS(common)                                                                                 \
        { "bitmap", &(common)->bitmap, false }, { "checkpoint", &(common)->checkpoint, false },                            \
        { "image", &(common)->image, false }, { "timeout", &(common)->timeout, false },
void disk_uri_common_clear(DiskUriCommon *common);

/* query: what is behind the "?"; NULL: nothing is. -EINVAL for a parameter that is not known, that is there twice, that
 * is empty or makes no sense. common: what all kinds have, among them. The caller frees the values, also after a failure. */
int disk_uri_take(const char *query, const DiskUriParameter *parameters, size_t count, DiskUriCommon *common,
                  Reason *reterr);

/* Loads the text into uri, whose reason for a failure gets the text in front, without secrets. */
int disk_uri_load(const char *text, int (*load)(const char *text, void *uri, Reason *reterr), void *uri, Reason *reterr);

/* -EINVAL where it has parameters that make sense for what is captured alone. shown: the URI for people. */
int disk_uri_refuse_captured(const DiskUriCommon *common, const char *shown, Reason *reterr);

/* base and the parameters that have a value. The caller frees *ret. -ENOMEM. */
int disk_uri_format(const char *base, const DiskUriParameter *parameters, size_t count, char **ret);

/* *path with the current directory in front where it is relative. */
int disk_uri_make_absolute(char **path, Reason *reterr);
