/* core/formats/qcow2/header.h - the header of a qcow2 image, version 2 or 3.
 *
 * qcow2_header_load() is where its bytes come in: after it all that reading the active state needs is in range, and the L1
 * table lies within the file. What it says of snapshots and bitmaps whoever loads those checks. All integers are
 * big-endian. The format is described in QEMU's docs/interop/qcow2. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "formats/byte-store.h"
#include "util/reason.h"

#define QCOW2_NAME_MAX 1023    /* bytes of the name of a backing or data file */
#define QCOW2_FORMAT_MAX 31    /* bytes of the name of the backing file's format */

/* One state of the disk: the active one, or a snapshot's. */
typedef struct Qcow2State {
        uint64_t disk_size; /* bytes; any */
        uint64_t l1_offset; /* in the file, of as many entries as the disk needs */
} Qcow2State;

typedef struct Qcow2Header {
        uint32_t version;
        uint32_t cluster_bits;                  /* 9 … 21 */
        bool extended;                          /* entries of L2 tables have 32 subclusters */
        bool zstd;                              /* compressed clusters are zstd frames, else raw deflate */
        bool dirty;                             /* reference counts may be wrong: nothing that reading needs */
        bool corrupt;                           /* QEMU found damage in it */
        bool has_data_file;                     /* guest data lies in a file apart */
        Qcow2State active;
        uint64_t snapshots_offset;              /* as the header says */
        uint32_t snapshot_count;
        uint64_t bitmaps_offset, bitmaps_length; /* the directory of persistent bitmaps, as the header says */
        uint32_t bitmap_count;
        bool bitmaps_stale;                     /* something that does not know them has written to the image since */
        char backing[QCOW2_NAME_MAX + 1];       /* name of the backing file; "": none */
        char backing_format[QCOW2_FORMAT_MAX + 1]; /* "": not said */
        char data_file[QCOW2_NAME_MAX + 1];     /* "": not said */
} Qcow2Header;

/* 1; 0 where the file does not begin as a qcow2 image does; -EBADMSG, or -ENOTSUP for what cannot be read though it is whole
 * (encrypted, features of a newer QEMU). */
int qcow2_header_load(ByteStore *image, Qcow2Header *ret, Reason *reterr);

/* Whether a state's L1 table fits. count: entries that the image says it has; file_size: bytes of the image; words: whose
 * table it is. -EBADMSG, in words that go behind the image's name. */
int qcow2_state_check(const Qcow2Header *header, const Qcow2State *state, uint32_t count, uint64_t file_size,
                      const char *words, Reason *reterr);

/* What a table of entries is made of. */
static inline uint32_t qcow2_entry_bits(const Qcow2Header *header) {
        return header->extended ? 4 : 3;
}
