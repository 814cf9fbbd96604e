/* core/formats/vma/archive.h - a VMA archive that is open: what all of its disks and files share.
 *
 * Its header is read when it is opened. What takes longer, the map of its clusters and the unpacking where it is compressed,
 * is begun by whoever first asks for a cluster, in a thread of the archive's own, and goes on when nobody waits. What has
 * been found can be read while the rest is still to come.
 * Threads: any number may use an archive at once. */
#pragma once

#include "formats/layer.h"
#include "formats/vma/cluster-map.h"

typedef struct VmaArchive VmaArchive;

/* All that have an archive open share it, through the store's memory. The entry is to be released; it has the archive.
 * -EBADMSG: no archive, damaged, or another file than the location says. */
int vma_archive_open(LayerStore *store, const LayerLocation *location, CacheEntry **ret, Reason *reterr);

/* How far it is where it is being unpacked, by whatever process: bytes of the packed file. -ENOENT: it is not. */
int vma_archive_progress(LayerStore *store, const LayerLocation *location, uint64_t *ret_done, uint64_t *ret_total);

const VmaHeader *vma_archive_header(const VmaArchive *archive);
const char *vma_archive_path(const VmaArchive *archive);

/* Looks up count clusters that the device has. One that is missing is lost: vma_archive_problem() has the words. -EAGAIN:
 * not all have been found yet; -EBUSY: it has to be unpacked first, and was not asked for in earnest (util/patience.h). */
int vma_archive_find(VmaArchive *archive, unsigned device, uint64_t first, size_t count, Cluster *ret, Reason *reterr);
/* The same, waiting until all have been found or nothing more will be. -EINTR: whoever asked has lost patience. */
int vma_archive_await(VmaArchive *archive, unsigned device, uint64_t first, size_t count, Cluster *ret, Reason *reterr);
/* Reads what such a cluster has stored. */
int vma_archive_read(VmaArchive *archive, void *buffer, size_t length, uint64_t offset, Reason *reterr);
/* Why clusters are missing. */
void vma_archive_problem(VmaArchive *archive, Reason *ret);
