#include "formats/vma/cluster-map.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "codec/checksum.h"
#include "util/bytes.h"
#include "util/io.h"

#define MAGIC "vbfs-vma"
#define VERSION 1
#define PAGE_ENTRIES (CLUSTER_MAP_PAGE / 8 - 1)
#define CHECKSUM_AT (CLUSTER_MAP_PAGE - 8)

enum { ENTRY_FOUND = 1, ENTRY_DOUBLE = 2, ENTRY_STATE = 3 };

typedef struct MapPage {
        atomic_uint_fast64_t entries[PAGE_ENTRIES];
} MapPage;

struct ClusterMap {
        const VmaHeader *header;
        int fd;                                      /* of the saved map; -1: it is in memory */
        uint64_t first_page[VMA_DEVICE_COUNT];       /* in the saved map */
        _Atomic(MapPage *) *pages[VMA_DEVICE_COUNT]; /* NULL until there is one */
        uint64_t limit, used;                        /* bytes of pages */
};

static uint64_t count_pages(const VmaDevice *device) {
        return divide_up(device->clusters, PAGE_ENTRIES);
}

static uint64_t place_pages(const VmaHeader *header, uint64_t first_page[static VMA_DEVICE_COUNT]) {
        uint64_t next = 1;

        for (unsigned i = 0; i < VMA_DEVICE_COUNT; i++) {
                first_page[i] = next;
                next += count_pages(&header->devices[i]);
        }
        return next;
}

uint64_t cluster_map_file_size(const VmaHeader *header) {
        uint64_t first_page[VMA_DEVICE_COUNT];

        return place_pages(header, first_page) * CLUSTER_MAP_PAGE;
}

int cluster_map_new(const VmaHeader *header, uint64_t limit, ClusterMap **ret) {
        CLEANUP(cluster_map_freep) ClusterMap *map = calloc(1, sizeof *map);

        if (!map)
                return -ENOMEM;
        map->header = header;
        map->fd = -1;
        map->limit = limit;
        (void) place_pages(header, map->first_page);
        for (unsigned i = 0; i < VMA_DEVICE_COUNT; i++) {
                if (header->devices[i].clusters == 0)
                        continue;
                map->pages[i] = calloc(count_pages(&header->devices[i]), sizeof *map->pages[i]);
                if (!map->pages[i])
                        return -ENOMEM;
        }
        *ret = STEAL_PTR(map);
        return 0;
}

ClusterMap *cluster_map_free(ClusterMap *map) {
        if (!map)
                return NULL;
        for (unsigned i = 0; i < VMA_DEVICE_COUNT; i++) {
                uint64_t count = map->pages[i] ? count_pages(&map->header->devices[i]) : 0;

                for (uint64_t page = 0; page < count && map->used > 0; page++)
                        if (map->pages[i][page]) {
                                free(map->pages[i][page]);
                                map->used -= sizeof(MapPage);
                        }
                free(map->pages[i]);
        }
        close_fd(&map->fd);
        free(map);
        return NULL;
}

int cluster_map_add(ClusterMap *map, unsigned device, uint64_t cluster, uint64_t offset, uint16_t mask) {
        _Atomic(MapPage *) *place = &map->pages[device][cluster / PAGE_ENTRIES];
        MapPage *page = atomic_load_explicit(place, memory_order_relaxed);
        atomic_uint_fast64_t *entry;

        if (!page) {
                if (map->used + sizeof *page > map->limit)
                        return -EFBIG;
                page = calloc(1, sizeof *page);
                if (!page)
                        return -ENOMEM;
                map->used += sizeof *page;
                atomic_store_explicit(place, page, memory_order_release);
        }
        entry = &page->entries[cluster % PAGE_ENTRIES];
        if (atomic_load_explicit(entry, memory_order_relaxed) != 0)
                atomic_store_explicit(entry, ENTRY_DOUBLE, memory_order_release);
        else
                atomic_store_explicit(entry, (uint64_t) mask << 48 | offset / 512 << 2 | ENTRY_FOUND, memory_order_release);
        return 0;
}

static Cluster decode(uint64_t entry) {
        static const ClusterState states[] = { CLUSTER_MISSING, CLUSTER_FOUND, CLUSTER_DOUBLE, CLUSTER_MISSING };

        return (Cluster) {
                .state = states[entry & ENTRY_STATE],
                .mask = (uint16_t) (entry >> 48),
                .offset = (entry >> 2 & ((UINT64_C(1) << 46) - 1)) * 512,
        };
}

/* A page of zeroes, as a hole has, stands for one without clusters. */
static int read_page(const ClusterMap *map, uint64_t number, unsigned char *page, Reason *reterr) {
        int rc = pread_whole(map->fd, page, CLUSTER_MAP_PAGE, number * CLUSTER_MAP_PAGE);

        if (rc < 0)
                return fail_errno(reterr, rc == -ENODATA ? -EIO : rc, "cannot read the map of its clusters");
        if (checksum(page, CHECKSUM_AT) != load_le64(page + CHECKSUM_AT) && !bytes_are_zero(page, CLUSTER_MAP_PAGE))
                return fail(reterr, -EIO, "the map of its clusters in the cache directory is damaged: the next mount makes "
                                          "it anew");
        return 0;
}

int cluster_map_get(ClusterMap *map, unsigned device, uint64_t first, size_t count, Cluster *ret, Reason *reterr) {
        unsigned char bytes[CLUSTER_MAP_PAGE];

        for (size_t done = 0; done < count;) {
                uint64_t number = (first + done) / PAGE_ENTRIES, at = (first + done) % PAGE_ENTRIES;
                size_t part = (size_t) min_u64(count - done, PAGE_ENTRIES - at);
                MapPage *page = NULL;

                if (map->fd >= 0) {
                        int rc = read_page(map, map->first_page[device] + number, bytes, reterr);

                        if (rc < 0)
                                return rc;
                        for (size_t i = 0; i < part; i++)
                                ret[done + i] = decode(load_le64(bytes + (at + i) * 8));
                } else {
                        page = atomic_load_explicit(&map->pages[device][number], memory_order_acquire);
                        for (size_t i = 0; i < part; i++)
                                ret[done + i] = decode(
                                        page ? atomic_load_explicit(&page->entries[at + i], memory_order_acquire) : 0);
                }
                done += part;
        }
        return 0;
}

static int write_page(int fd, uint64_t number, unsigned char *page) {
        store_le64(page + CHECKSUM_AT, checksum(page, CHECKSUM_AT));
        if (lseek(fd, (off_t) (number * CLUSTER_MAP_PAGE), SEEK_SET) < 0)
                return -errno;
        return write_whole(fd, page, CLUSTER_MAP_PAGE);
}

/* All that page 0 says. */
static void make_first_page(const VmaHeader *header, uint64_t archive_length, unsigned char page[static CLUSTER_MAP_PAGE]) {
        memset(page, 0, CLUSTER_MAP_PAGE);
        memcpy(page, MAGIC, 8);
        store_le64(page + 8, VERSION);
        memcpy(page + 16, header->uuid, VMA_UUID_SIZE);
        memcpy(page + 32, header->bytes + VMA_HEADER_MD5_AT, 16);
        store_le64(page + 48, archive_length);
        store_le64(page + 56, cluster_map_file_size(header) / CLUSTER_MAP_PAGE - 1);
        store_le64(page + CHECKSUM_AT, checksum(page, CHECKSUM_AT));
}

int cluster_map_save(const ClusterMap *map, uint64_t archive_length, int fd) {
        unsigned char bytes[CLUSTER_MAP_PAGE];
        int rc;

        if (ftruncate(fd, (off_t) cluster_map_file_size(map->header)) < 0)
                return -errno;
        make_first_page(map->header, archive_length, bytes);
        rc = write_page(fd, 0, bytes);
        for (unsigned i = 0; rc == 0 && i < VMA_DEVICE_COUNT; i++)
                for (uint64_t number = 0; rc == 0 && number < count_pages(&map->header->devices[i]); number++) {
                        MapPage *page = atomic_load_explicit(&map->pages[i][number], memory_order_relaxed);

                        if (!page)
                                continue;
                        for (size_t k = 0; k < PAGE_ENTRIES; k++)
                                store_le64(bytes + k * 8, atomic_load_explicit(&page->entries[k], memory_order_relaxed));
                        rc = write_page(fd, map->first_page[i] + number, bytes);
                }
        return rc;
}

int cluster_map_load(const VmaHeader *header, int fd, ClusterMap **ret, uint64_t *ret_archive_length) {
        CLEANUP(freep) ClusterMap *map = calloc(1, sizeof *map);
        unsigned char page[CLUSTER_MAP_PAGE], expected[CLUSTER_MAP_PAGE];
        struct stat st;
        int rc;

        if (!map)
                return -ENOMEM;
        if (fstat(fd, &st) < 0)
                return -errno;
        if ((uint64_t) st.st_size != cluster_map_file_size(header))
                return -EBADMSG;
        rc = pread_whole(fd, page, sizeof page, 0);
        if (rc < 0)
                return rc;
        *ret_archive_length = load_le64(page + 48);
        make_first_page(header, *ret_archive_length, expected);
        if (memcmp(page, expected, sizeof page) != 0)
                return -EBADMSG;
        map->header = header;
        (void) place_pages(header, map->first_page);
        map->fd = fd;
        *ret = STEAL_PTR(map);
        return 0;
}
