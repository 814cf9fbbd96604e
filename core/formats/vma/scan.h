/* core/formats/vma/scan.h - hops once over all extents of a VMA archive and makes the map of its clusters.
 *
 * An extent that is damaged is left out, and the next one looked for: what it held is missing, and the rest is there.
 * Threads: one. */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>

#include "formats/byte-store.h"
#include "formats/vma/cluster-map.h"

typedef struct VmaScan {
        const VmaHeader *header;
        ClusterMap *map;
        uint64_t at;      /* where the next extent begins */
        uint64_t extents; /* so far */
        bool damaged;     /* then problem tells what was found first */
        Reason problem;
} VmaScan;

/* Borrows both. */
void vma_scan_init(VmaScan *scan, const VmaHeader *header, ClusterMap *map);

/* Goes on with what there is: the first `available` bytes of the archive, which at_end are all. 1: there may be more to do
 * (it returns from time to time, so that others hear of what has been found); 0: it waits for more bytes, or has come to the
 * end. An error where nothing can be read or remembered any more; -ECANCELED. */
int vma_scan_step(VmaScan *scan, ByteStore *bytes, uint64_t available, bool at_end, const atomic_bool *cancel,
                  Reason *reterr);
