#include "formats/vma/scan.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "formats/vma/extent.h"
#include "util/bytes.h"

#define EXTENTS_AT_ONCE 64
#define SEARCH_AT_ONCE 65536u /* bytes */

void vma_scan_init(VmaScan *scan, const VmaHeader *header, ClusterMap *map) {
        *scan = (VmaScan) { .header = header, .map = map, .at = header->size };
}

/* The first problem explains the others, mostly. */
static void note_problem(VmaScan *scan, const char *words, uint64_t at) {
        if (!scan->damaged)
                fail(&scan->problem, 0, "at %" PRIu64 " of the archive: %s", at, words);
        scan->damaged = true;
}

/* Moves on to what looks like the next extent, or to the end. */
static int search(VmaScan *scan, ByteStore *bytes, uint64_t available, const atomic_bool *cancel, Reason *reterr) {
        unsigned char buffer[SEARCH_AT_ONCE];

        scan->at += 512;
        while (available - scan->at >= 512) {
                size_t length = round_down(min_u64(available - scan->at, sizeof buffer), 512);
                int rc = byte_store_read(bytes, buffer, length, scan->at, reterr);

                if (rc < 0)
                        return rc;
                for (size_t i = 0; i < length; i += 512)
                        if (memcmp(buffer + i, VMA_EXTENT_MAGIC, 4) == 0 &&
                            memcmp(buffer + i + 8, scan->header->uuid, VMA_UUID_SIZE) == 0) {
                                scan->at += i;
                                return 0;
                        }
                scan->at += length;
                if (atomic_load_explicit(cancel, memory_order_relaxed))
                        return fail(reterr, -ECANCELED, "cancelled");
        }
        scan->at = available;
        return 0;
}

static int add_entry(VmaScan *scan, const VmaEntry *entry, uint64_t available, Reason *reterr) {
        const VmaDevice *device = &scan->header->devices[entry->device];
        uint64_t offset = scan->at + VMA_EXTENT_HEADER_SIZE + entry->offset;
        uint64_t length = (uint64_t) __builtin_popcount(entry->mask) * VMA_BLOCK_SIZE;
        int rc;

        if (entry->cluster >= device->clusters) {
                /* How much RAM there was, nobody knew beforehand. */
                if (!device->ram)
                        note_problem(scan, "there is a cluster that no device has", scan->at);
                return 0;
        }
        if (offset + length > available)
                return 0;
        rc = cluster_map_add(scan->map, entry->device, entry->cluster, offset, entry->mask);
        if (rc == -EFBIG)
                return fail(reterr, rc, "its clusters are scattered over more than the archive can hold");
        return rc < 0 ? fail_oom(reterr) : 0;
}

static int add_extent(VmaScan *scan, const VmaExtent *extent, uint64_t available, Reason *reterr) {
        for (unsigned i = 0; i < VMA_EXTENT_ENTRIES; i++) {
                int rc = extent->entries[i].device ? add_entry(scan, &extent->entries[i], available, reterr) : 0;

                if (rc < 0)
                        return rc;
        }
        if (extent->length > available - scan->at)
                note_problem(scan, "the archive is cut off within an extent", scan->at);
        scan->at += min_u64(extent->length, available - scan->at);
        scan->extents++;
        return 0;
}

int vma_scan_step(VmaScan *scan, ByteStore *bytes, uint64_t available, bool at_end, const atomic_bool *cancel,
                  Reason *reterr) {
        for (unsigned i = 0; i < EXTENTS_AT_ONCE; i++) {
                unsigned char header[VMA_EXTENT_HEADER_SIZE];
                Reason reason = REASON_INIT;
                VmaExtent extent;
                int rc;

                if (atomic_load_explicit(cancel, memory_order_relaxed))
                        return fail(reterr, -ECANCELED, "cancelled");
                if (available <= scan->at || (!at_end && available - scan->at < VMA_EXTENT_MAX))
                        return 0;
                if (available - scan->at < VMA_EXTENT_HEADER_SIZE) {
                        note_problem(scan, "the archive is cut off within the header of an extent", scan->at);
                        scan->at = available;
                        return 0;
                }
                rc = byte_store_read(bytes, header, sizeof header, scan->at, reterr);
                if (rc < 0)
                        return rc;
                rc = vma_extent_load(header, scan->header->uuid, &extent, &reason);
                if (rc < 0)
                        note_problem(scan, reason.text, scan->at);
                rc = rc < 0 ? search(scan, bytes, available, cancel, reterr) : add_extent(scan, &extent, available, reterr);
                if (rc < 0)
                        return rc;
        }
        return 1;
}
