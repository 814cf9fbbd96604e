#include "formats/vma/archive.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <nettle/sha2.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "codec/checksum.h"
#include "formats/vma/content.h"
#include "formats/vma/peek.h"
#include "formats/vma/scan.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/io.h"
#include "util/patience.h"
#include "util/text.h"

#define MAP_KIND "map"
#define MAP_WORTH_SAVING 1024        /* extents: some seconds of a disk that turns */
#define MAP_MEMORY_MIN (64u << 20)   /* bytes that it may take whatever the archive's length */
#define RETRY_SECONDS 5              /* after a failure that may not be for ever */

struct VmaArchive {
        LayerStore *store;
        char *path;
        uint64_t length, seal;
        char key[DISK_CACHE_KEY_LENGTH + 1]; /* in the disk cache */
        ByteStore *file;                     /* as it lies there */
        const Packing *packing;              /* or NULL */
        VmaHeader *header;

        pthread_mutex_t lock;                /* of what follows; nothing is locked within, nor waited for but `changed` */
        pthread_cond_t changed;
        bool running, done;
        int error;                           /* with done: what it ended with; */
        bool damaged;                        /* clusters are missing; */
        Reason problem;                      /* and why */
        time_t ended;
        pthread_t thread;
        bool joinable;
        atomic_bool cancel;

        pthread_rwlock_t contents;           /* of the next two: held while they are used */
        Content *content;
        ClusterMap *map;                     /* NULL: nothing is known yet */
};

const VmaHeader *vma_archive_header(const VmaArchive *archive) {
        return archive->header;
}

const char *vma_archive_path(const VmaArchive *archive) {
        return archive->path;
}

static void replace_map(VmaArchive *archive, ClusterMap *map) {
        ClusterMap *old;

        pthread_rwlock_wrlock(&archive->contents);
        old = archive->map;
        archive->map = map;
        pthread_rwlock_unlock(&archive->contents);
        cluster_map_free(old);
}

static void replace_content(VmaArchive *archive, Content *content) {
        Content *old;

        pthread_rwlock_wrlock(&archive->contents);
        old = archive->content;
        archive->content = content;
        pthread_rwlock_unlock(&archive->contents);
        content_free(old);
}

static void tell_changed(VmaArchive *archive) {
        pthread_mutex_lock(&archive->lock);
        pthread_cond_broadcast(&archive->changed);
        pthread_mutex_unlock(&archive->lock);
}

/* A map that was saved before. */
static bool load_map(VmaArchive *archive, uint64_t available) {
        CLEANUP(close_fd) int fd = -1;
        uint64_t archive_length = 0;
        ClusterMap *map;

        if (disk_cache_open(layer_store_disk(archive->store), archive->key, MAP_KIND, &fd, NULL) < 0 ||
            cluster_map_load(archive->header, fd, &map, &archive_length) < 0)
                return false;
        (void) STEAL_FD(fd);
        if (archive_length != available) {
                cluster_map_free(map);
                return false;
        }
        replace_map(archive, map);
        return true;
}

/* Not being able to only costs time and memory. */
static void save_map(VmaArchive *archive, uint64_t archive_length) {
        CLEANUP(disk_draft_freep) DiskDraft *draft = NULL;

        if (disk_draft_new(layer_store_disk(archive->store), archive->key, MAP_KIND, &draft, NULL) < 0 ||
            disk_draft_reserve(draft, cluster_map_file_size(archive->header), NULL) < 0 ||
            cluster_map_save(archive->map, archive_length, disk_draft_fd(draft)) < 0 || disk_draft_commit(draft, NULL) < 0)
                return;
        (void) load_map(archive, archive_length);
}

/* Goes over the archive as it comes. */
static int scan_content(VmaArchive *archive, Content *content, VmaScan *scan, uint64_t *ret_available, Reason *reterr) {
        bool at_end = false;

        while (!at_end) {
                int rc = content_advance(content, ret_available, &at_end, reterr);

                while (rc >= 0 && (rc = vma_scan_step(scan, content_bytes(content), *ret_available, at_end, &archive->cancel,
                                                      reterr)) == 1)
                        tell_changed(archive);
                if (rc < 0)
                        return rc;
                tell_changed(archive);
                if (content_is_growing(content) && !at_end)
                        layer_store_tell(archive->store, archive->path, content_position(content), archive->length, NULL);
        }
        return 0;
}

/* *ret_unpacked: it was unpacked, by us. */
static int prepare(VmaArchive *archive, bool *ret_unpacked, Reason *reterr) {
        uint64_t available = 0, limit;
        VmaScan scan;
        Content *content;
        ClusterMap *map;
        bool at_end;
        int rc;

        rc = content_open(archive->file, archive->packing, archive->store, archive->key, &archive->cancel, &content, reterr);
        if (rc < 0)
                return rc;
        replace_content(archive, content);
        *ret_unpacked = content_is_growing(content);
        if (!*ret_unpacked) {
                rc = content_advance(content, &available, &at_end, reterr);
                if (rc < 0 || load_map(archive, available))
                        return rc;
        }

        /* Each cluster takes more in the archive than in the map. */
        limit = max_u64(*ret_unpacked ? cluster_map_file_size(archive->header) : available, MAP_MEMORY_MIN);
        if (cluster_map_new(archive->header, limit, &map) < 0)
                return fail_oom(reterr);
        replace_map(archive, map);
        vma_scan_init(&scan, archive->header, map);
        rc = scan_content(archive, content, &scan, &available, reterr);
        if (rc == 0)
                rc = content_finish(content, reterr);
        if (scan.damaged) {
                pthread_mutex_lock(&archive->lock);
                archive->damaged = true;
                archive->problem = scan.problem;
                pthread_mutex_unlock(&archive->lock);
        } else if (rc == 0 && scan.extents >= MAP_WORTH_SAVING)
                save_map(archive, available);
        return rc;
}

static void *run(void *argument) {
        VmaArchive *archive = argument;
        Reason reason = REASON_INIT;
        bool unpacked = false;
        int rc = prepare(archive, &unpacked, &reason);

        if (archive->packing && (unpacked || rc < 0))
                layer_store_tell(archive->store, archive->path, rc < 0 ? 0 : archive->length, archive->length,
                                 rc < 0 ? &reason : NULL);
        pthread_mutex_lock(&archive->lock);
        archive->running = false;
        archive->done = true;
        archive->error = rc;
        archive->ended = time(NULL);
        if (rc < 0 && !archive->damaged)
                archive->problem = reason;
        pthread_cond_broadcast(&archive->changed);
        pthread_mutex_unlock(&archive->lock);
        return NULL;
}

/* With the lock held. */
static int start(VmaArchive *archive, Reason *reterr) {
        int rc;

        if (archive->joinable)
                pthread_join(archive->thread, NULL);
        archive->joinable = false;
        archive->done = archive->damaged = false;
        rc = -pthread_create(&archive->thread, NULL, run, archive);
        if (rc < 0)
                return fail_errno(reterr, rc, "%s: cannot start a thread", archive->path);
        archive->joinable = archive->running = true;
        return 0;
}

/* Damage stays; a full cache directory may not. With the lock held. */
static bool is_worth_retrying(const VmaArchive *archive) {
        return archive->error < 0 && archive->error != -EBADMSG && time(NULL) - archive->ended >= RETRY_SECONDS;
}

/* Whether it has to be unpacked before anything is known. With the lock held. */
static bool takes_long(const VmaArchive *archive) {
        CLEANUP(close_fd) int fd = -1;

        return archive->packing && !archive->done &&
               disk_cache_open(layer_store_disk(archive->store), archive->key, CONTENT_KIND, &fd, NULL) < 0;
}

static void wait_a_little(VmaArchive *archive) {
        struct timespec until = clock_in_ms(PATIENCE_INTERVAL);

        pthread_cond_timedwait(&archive->changed, &archive->lock, &until);
}

/* Looks the clusters up as far as they are known: 0 where all are there, 1 where some are not. */
static int look_up(VmaArchive *archive, unsigned device, uint64_t first, size_t count, Cluster *ret, Reason *reterr) {
        int rc = 0;

        memset(ret, 0, count * sizeof *ret);
        pthread_rwlock_rdlock(&archive->contents);
        if (archive->map)
                rc = cluster_map_get(archive->map, device, first, count, ret, reterr);
        pthread_rwlock_unlock(&archive->contents);
        if (rc < 0) {
                disk_cache_delete(layer_store_disk(archive->store), archive->key, MAP_KIND);
                return fail_within(reterr, rc, "%s", archive->path);
        }
        for (size_t i = 0; i < count; i++)
                if (ret[i].state == CLUSTER_MISSING)
                        return 1;
        return 0;
}

/* Sees to it that somebody is at it. With the lock held. */
static int set_going(VmaArchive *archive, Reason *reterr) {
        if (patience_is_light() && takes_long(archive))
                return fail(reterr, -EBUSY, "%s: it is not unpacked yet", archive->path);
        if (!archive->running && (!archive->done || is_worth_retrying(archive)))
                return start(archive, reterr);
        return 0;
}

int vma_archive_find(VmaArchive *archive, unsigned device, uint64_t first, size_t count, Cluster *ret, Reason *reterr) {
        bool done;
        int rc = look_up(archive, device, first, count, ret, reterr);

        if (rc <= 0)
                return rc;
        pthread_mutex_lock(&archive->lock);
        rc = set_going(archive, reterr);
        done = archive->done;
        pthread_mutex_unlock(&archive->lock);
        if (rc < 0)
                return rc;
        /* Once more: it may have been found before it was done. */
        rc = look_up(archive, device, first, count, ret, reterr);
        if (rc > 0 && !done)
                return fail(reterr, -EAGAIN, "%s: it is not looked through yet", archive->path);
        return rc < 0 ? rc : 0;
}

int vma_archive_await(VmaArchive *archive, unsigned device, uint64_t first, size_t count, Cluster *ret, Reason *reterr) {
        int rc;

        while ((rc = vma_archive_find(archive, device, first, count, ret, reterr)) == -EAGAIN) {
                if (patience_is_over())
                        return fail(reterr, -EINTR, "%s: it is not unpacked or looked through yet", archive->path);
                pthread_mutex_lock(&archive->lock);
                if (!archive->done)
                        wait_a_little(archive);
                pthread_mutex_unlock(&archive->lock);
        }
        return rc;
}

int vma_archive_read(VmaArchive *archive, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        int rc;

        pthread_rwlock_rdlock(&archive->contents);
        rc = archive->content ? byte_store_read(content_bytes(archive->content), buffer, length, offset, reterr)
                              : fail(reterr, -EAGAIN, "%s: it is being opened anew", archive->path);
        pthread_rwlock_unlock(&archive->contents);
        return rc;
}

void vma_archive_problem(VmaArchive *archive, Reason *ret) {
        pthread_mutex_lock(&archive->lock);
        if (archive->damaged || archive->error < 0)
                *ret = archive->problem;
        else
                fail(ret, 0, "the archive ends without it");
        pthread_mutex_unlock(&archive->lock);
}

static void archive_free(void *value) {
        VmaArchive *archive = value;

        atomic_store(&archive->cancel, true);
        if (archive->joinable)
                pthread_join(archive->thread, NULL);
        cluster_map_free(archive->map);
        content_free(archive->content);
        byte_store_free(archive->file);
        vma_header_free(archive->header);
        pthread_rwlock_destroy(&archive->contents);
        pthread_cond_destroy(&archive->changed);
        pthread_mutex_destroy(&archive->lock);
        free(archive->path);
        free(archive);
}

static void archive_freep(VmaArchive **archive) {
        if (*archive)
                archive_free(*archive);
}

/* The same for the same file in the same place, over mounts and restarts; and for no other that somebody could make. */
static int make_key(LayerStore *store, const char *path, char ret[static DISK_CACHE_KEY_LENGTH + 1], Reason *reterr) {
        char link[64], root[PATH_MAX];
        unsigned char fields[32], digest[SHA256_DIGEST_SIZE];
        CLEANUP(close_fd) int fd = open_beneath(layer_store_root(store), path, O_PATH, 0);
        struct sha256_ctx context;
        struct stat st;
        ssize_t length;

        snprintf(link, sizeof link, "/proc/self/fd/%d", layer_store_root(store));
        length = readlink(link, root, sizeof root);
        if (fd < 0 || fstat(fd, &st) < 0 || length < 0)
                return fail_errno(reterr, fd < 0 ? fd : -errno, "cannot look at %s", path);
        store_le64(fields, st.st_ino);
        store_le64(fields + 8, (uint64_t) st.st_size);
        store_le64(fields + 16, (uint64_t) st.st_mtim.tv_sec);
        store_le64(fields + 24, (uint64_t) st.st_mtim.tv_nsec);
        sha256_init(&context);
        sha256_update(&context, (size_t) length, (const uint8_t *) root);
        sha256_update(&context, 1, (const uint8_t *) "/");
        sha256_update(&context, strlen(path) + 1, (const uint8_t *) path);
        sha256_update(&context, sizeof fields, fields);
        sha256_digest(&context, sizeof digest, digest);
        for (size_t i = 0; i < DISK_CACHE_KEY_LENGTH / 2; i++)
                sprintf(ret + 2 * i, "%02x", digest[i]);
        return 0;
}

typedef struct ArchiveRequest {
        LayerStore *store;
        const LayerLocation *location;
} ArchiveRequest;

static int load_archive(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        const ArchiveRequest *request = context;
        CLEANUP(archive_freep) VmaArchive *archive = calloc(1, sizeof *archive);
        pthread_rwlockattr_t attributes;
        int rc;

        if (!archive)
                return fail_oom(reterr);
        archive->store = request->store;
        archive->length = request->location->length;
        archive->seal = request->location->seal;
        pthread_mutex_init(&archive->lock, NULL);
        clock_condition_init(&archive->changed);
        /* Or readers that overlap would hold up the thread for ever. */
        pthread_rwlockattr_init(&attributes);
        pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        pthread_rwlock_init(&archive->contents, &attributes);
        pthread_rwlockattr_destroy(&attributes);
        archive->path = strdup(request->location->path);
        if (!archive->path)
                return fail_oom(reterr);
        rc = layer_store_open_file(request->store, request->location, &archive->file, reterr);
        if (rc == 0)
                rc = make_key(archive->store, archive->path, archive->key, reterr);
        if (rc < 0)
                return rc;
        rc = vma_peek(archive->file, &archive->packing, &archive->header, reterr);
        if (rc < 0)
                return fail_within(reterr, rc, "%s", archive->path);
        *ret_cost = sizeof *archive + sizeof *archive->header + archive->header->size;
        *ret = STEAL_PTR(archive);
        return 0;
}

static const CacheLoader archive_loader = { load_archive, archive_free };

int vma_archive_open(LayerStore *store, const LayerLocation *location, CacheEntry **ret, Reason *reterr) {
        ArchiveRequest request = { store, location };
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        CLEANUP(freep) char *text = NULL;
        const VmaArchive *archive;
        CacheKey key = { .owner = layer_store_archives(store) };
        int rc;

        if (text_format(&text, "vma archive/%s/%" PRIu64 "/%" PRIu64, location->path, location->length, location->seal) < 0)
                return fail_oom(reterr);
        key.item = checksum(text, strlen(text));
        rc = cache_get(layer_store_memory(store), key, &archive_loader, &request, &entry, reterr);
        if (rc < 0)
                return rc;
        archive = cache_value(entry);
        if (strcmp(archive->path, location->path) != 0 || archive->length != location->length ||
            archive->seal != location->seal)
                return fail(reterr, -EIO, "%s cannot be told from another file", location->path);
        *ret = STEAL_PTR(entry);
        return 0;
}

int vma_archive_progress(LayerStore *store, const LayerLocation *location, uint64_t *ret_done, uint64_t *ret_total) {
        char key[DISK_CACHE_KEY_LENGTH + 1];

        if (make_key(store, location->path, key, NULL) < 0)
                return -ENOENT;
        return disk_cache_progress(layer_store_disk(store), key, CONTENT_KIND, ret_done, ret_total);
}
