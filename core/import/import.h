/* core/import/import.h - makes points of ours of what other tools have stored: the chain as it is, layer by layer.
 *
 * A full layer stays full and an incremental one incremental; names, times and kept files stay. A point becomes visible
 * when it is whole. What is there already, of an import that was interrupted or of one before, is passed over; what cannot
 * be read, or is not what its writer noted of it (checksums beside it), is told and left out with what continues it. The VM
 * is made where it is not there, without a source. Threads: one import belongs to one; functions of ImportOptions are
 * called from it. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "codec/codec.h"
#include "repository/vm.h"

typedef struct ImportProgress {
        const char *point;      /* VM/POINT */
        size_t number, count;   /* of the points that are imported, from 1 */
        const char *disk;       /* or file */
        uint64_t done, total;   /* bytes of it */
} ImportProgress;

typedef struct ImportOptions {
        const Codec *codec;
        int codec_level;     /* 0: the codec's own default */
        uint32_t block_size; /* bytes */
        const atomic_bool *cancel; /* or NULL */
        /* All may be NULL. */
        void (*progress)(void *context, const ImportProgress *progress); /* often */
        void (*tell)(void *context, const char *line);  /* a point that was imported: VM/POINT */
        void (*warn)(void *context, const char *line);  /* one that was not, and why */
        void *context;
} ImportOptions;

typedef struct ImportTotals {
        size_t left_out; /* points */
} ImportTotals;

/* Imports all points of a VM of another tool into the VM of that name. -EEXIST: there is another VM of this name, or it has
 * points that are not these; -EBUSY; -EROFS; -ENOSPC, … where the repository cannot be written to; -ECANCELED. What is wrong
 * with single points is no error. Adds to *totals, also on failure. */
int import_vm(Repository *repository, Vm *from, const char *name, const ImportOptions *options, ImportTotals *totals,
              Reason *reterr);
