/* core/formats/vma/cluster-map.h - where in a VMA archive each cluster of each device is.
 *
 * An archive has no index: the map is made once, by hopping from extent to extent. It takes 8 bytes for a cluster, in pages
 * that exist where there is something in them. Once it is whole it can be saved to a file, which has the pages behind each
 * other, each with its checksum; then nothing of it stays in memory.
 *
 *     page 0          "vbfs-vma", version 1 (8), UUID of the archive (16), MD5 of its header (16), length of the archive
 *                     unpacked (8), pages behind this one (8); zeroes; checksum of the page before it (8)
 *     pages from 1 on those of device 1, of device 2, …: 511 entries, checksum. A page of zeroes: no cluster is there
 * All little-endian. An entry: bits 0–1: 0: not there, 1: there, 2: there several times; bits 2–47: where its first stored
 * block is, in units of 512 bytes; bits 48–63: which blocks are stored.
 * Threads: one adds and saves; any look up meanwhile and see what has been added. */
#pragma once

#include <stdint.h>

#include "formats/vma/header.h"
#include "util/cleanup.h"
#include "util/reason.h"

#define CLUSTER_MAP_PAGE 4096u

typedef struct ClusterMap ClusterMap;

typedef enum ClusterState { CLUSTER_MISSING, CLUSTER_FOUND, CLUSTER_DOUBLE } ClusterState;

typedef struct Cluster {
        ClusterState state;
        uint16_t mask;   /* which of its blocks are stored */
        uint64_t offset; /* of the first of them, in the archive; a multiple of 512 */
} Cluster;

/* Borrows the header. limit: bytes that the pages may take in memory. */
int cluster_map_new(const VmaHeader *header, uint64_t limit, ClusterMap **ret);
ClusterMap *cluster_map_free(ClusterMap *map); /* always NULL */
DEFINE_CLEANUP(ClusterMap, cluster_map_free)

/* The device exists and has such a cluster. A second one makes it a double one. -EFBIG: past the limit. */
int cluster_map_add(ClusterMap *map, unsigned device, uint64_t cluster, uint64_t offset, uint16_t mask);

/* count clusters from first on, all of which the device has. -EIO: the saved map is damaged. */
int cluster_map_get(ClusterMap *map, unsigned device, uint64_t first, size_t count, Cluster *ret, Reason *reterr);

/* Bytes that the saved map takes at most. */
uint64_t cluster_map_file_size(const VmaHeader *header);
/* Writes it to an empty file. archive_length: see above. The pages stay in memory. */
int cluster_map_save(const ClusterMap *map, uint64_t archive_length, int fd);
/* Uses a saved map; takes the descriptor over on success. -EBADMSG where it is damaged or of another archive. */
int cluster_map_load(const VmaHeader *header, int fd, ClusterMap **ret, uint64_t *ret_archive_length);
