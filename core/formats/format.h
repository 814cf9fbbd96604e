/* core/formats/format.h - the formats in which layers are stored: one table, one line each.
 *
 * A format opens layers. One that other tools write also finds what they left in a directory (found.h).
 * Threads: open from any; find from one at a time for each Findings. */
#pragma once

#include "formats/found.h"
#include "formats/layer.h"

typedef struct Format {
        const char *name; /* as LayerLocation has it, and `list` prints it */
        /* -EIO or -EBADMSG where the file is missing, damaged or another one than the location says; -ENOTSUP where it needs
         * what is not known or not possible, in words. */
        int (*open)(LayerStore *store, const LayerLocation *location, Layer **ret, Reason *reterr);
        /* Claims the entries of the directory that are this format's and adds what they show. It reads what tells layers
         * apart (headers), never as much as grows with the data: it runs for every file when a directory is mounted. What
         * is wrong with one file is found_refuse(), or the problem of a layer; an error is for what stops everything
         * (-ENOMEM). NULL: nothing is ever found by looking (native, kept). */
        int (*find)(FoundDirectory *directory, Reason *reterr);
        /* As layer_progress(). NULL: nothing has to be unpacked as a whole. */
        int (*progress)(LayerStore *store, const LayerLocation *location, uint64_t *ret_done, uint64_t *ret_total);
        /* As layer_check(). NULL: reading checks all that can be checked. */
        int (*check)(LayerStore *store, const LayerLocation *location, const LayerCheck *check, Reason *reterr);
} Format;

/* In the order in which they are asked to find; NULL at the end. */
extern const Format *const formats[];

/* NULL: not known. */
const Format *format_named(const char *name);
