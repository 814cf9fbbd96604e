#include "formats/vma/content.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "formats/vma/frames.h"
#include "util/bytes.h"
#include "util/io.h"
#include "util/patience.h"

#define UNPACK_AT_ONCE (4u << 20) /* bytes */
#define HOLE_SIZE (64u << 10)     /* bytes of zeroes that are left out, at multiples of it */

struct Content {
        ByteStore *bytes;
        bool owns_bytes;
        Unpacker *unpacker; /* where it is being unpacked, with draft and buffer */
        DiskDraft *draft;
        unsigned char *buffer;
        uint64_t available;
        uint64_t packed; /* bytes of the packed file */
};

/* A file in the disk cache. */
typedef struct CachedFile {
        ByteStore store;
        int fd;
        bool owns_fd;
} CachedFile;

static int cached_file_read(ByteStore *store, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        int rc = pread_whole(((CachedFile *) store)->fd, buffer, length, offset);

        if (rc == -ENODATA)
                return fail(reterr, -EIO, "%s: what was unpacked is shorter than it was", store->name);
        return rc < 0 ? fail_errno(reterr, rc, "%s: cannot read what was unpacked", store->name) : 0;
}

static void cached_file_free(ByteStore *store) {
        CachedFile *file = (CachedFile *) store;

        if (file->owns_fd)
                close_fd(&file->fd);
        free(store->name);
        free(file);
}

static const ByteStoreOps cached_file_ops = { .read = cached_file_read, .free = cached_file_free };

/* Takes the descriptor over where owns_fd, on success. */
static int cached_file_new(int fd, bool owns_fd, uint64_t size, const char *name, ByteStore **ret, Reason *reterr) {
        CachedFile *file = malloc(sizeof *file);
        char *copy = strdup(name);

        if (!file || !copy) {
                free(file);
                free(copy);
                return fail_oom(reterr);
        }
        *file = (CachedFile) {
                .store = { .ops = &cached_file_ops, .size = size, .name = copy },
                .fd = fd,
                .owns_fd = owns_fd,
        };
        *ret = &file->store;
        return 0;
}

Content *content_free(Content *content) {
        if (!content)
                return NULL;
        if (content->owns_bytes)
                byte_store_free(content->bytes);
        unpacker_free(content->unpacker);
        disk_draft_free(content->draft);
        free(content->buffer);
        free(content);
        return NULL;
}

/* What has been unpacked before. */
static int open_unpacked(Content *content, const char *name, DiskCache *disk, const char *key, Reason *reterr) {
        CLEANUP(close_fd) int fd = -1;
        struct stat st;
        int rc = disk_cache_open(disk, key, CONTENT_KIND, &fd, NULL);

        if (rc < 0)
                return rc;
        if (fstat(fd, &st) < 0)
                return fail_errno(reterr, -errno, "%s: cannot look at what was unpacked", name);
        rc = cached_file_new(fd, true, (uint64_t) st.st_size, name, &content->bytes, reterr);
        if (rc < 0)
                return rc;
        (void) STEAL_FD(fd);
        content->owns_bytes = true;
        content->available = (uint64_t) st.st_size;
        return 0;
}

static int begin_unpacking(Content *content, ByteStore *file, const Packing *packing, Reason *reterr) {
        int rc = unpacker_new(packing, file, &content->unpacker, reterr);

        if (rc < 0)
                return rc;
        content->packed = byte_store_size(file);
        disk_draft_tell(content->draft, 0, content->packed);
        content->buffer = malloc(UNPACK_AT_ONCE);
        if (!content->buffer)
                return fail_oom(reterr);
        rc = cached_file_new(disk_draft_fd(content->draft), false, INT64_MAX, byte_store_name(file), &content->bytes,
                             reterr);
        content->owns_bytes = rc == 0;
        return rc;
}

/* What is there, or the right to make it: two processes do it once. */
static int open_packed(Content *content, ByteStore *file, const Packing *packing, DiskCache *disk, const char *key,
                       const atomic_bool *cancel, Reason *reterr) {
        static const struct timespec interval = { .tv_nsec = PATIENCE_INTERVAL * 1000000L };

        for (;;) {
                int rc = open_unpacked(content, byte_store_name(file), disk, key, reterr);

                if (rc == 0)
                        return 0;
                rc = disk_draft_new(disk, key, CONTENT_KIND, &content->draft, reterr);
                if (rc == 0)
                        return begin_unpacking(content, file, packing, reterr);
                if (rc != -EBUSY && rc != -EEXIST)
                        return rc;
                if (atomic_load(cancel))
                        return fail(reterr, -ECANCELED, "cancelled");
                if (rc == -EBUSY)
                        nanosleep(&interval, NULL);
        }
}

int content_open(ByteStore *file, const Packing *packing, LayerStore *store, const char *key, const atomic_bool *cancel,
                 Content **ret, Reason *reterr) {
        CLEANUP(content_freep) Content *content = calloc(1, sizeof *content);
        int rc = -ENOTSUP;

        if (!content)
                return fail_oom(reterr);
        if (!packing) {
                content->bytes = file;
                content->available = byte_store_size(file);
                *ret = STEAL_PTR(content);
                return 0;
        }
        if (packing == &packing_zstd) {
                rc = frames_open(file, layer_store_memory(store), cancel, &content->bytes, reterr);
                if (rc == 0) {
                        content->owns_bytes = true;
                        content->available = byte_store_size(content->bytes);
                }
        }
        if (rc == -ENOTSUP)
                rc = open_packed(content, file, packing, layer_store_disk(store), key, cancel, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(content);
        return 0;
}

ByteStore *content_bytes(Content *content) {
        return content->bytes;
}

bool content_is_growing(const Content *content) {
        return content->unpacker;
}

uint64_t content_position(const Content *content) {
        return content->unpacker ? unpacker_position(content->unpacker) : 0;
}

/* Zeroes become holes. */
static int append(const Content *content, size_t length) {
        int fd = disk_draft_fd(content->draft);

        for (size_t at = 0; at < length; at += HOLE_SIZE) {
                size_t part = (size_t) min_u64(length - at, HOLE_SIZE);
                int rc = 0;

                if (bytes_are_zero(content->buffer + at, part)) {
                        if (lseek(fd, (off_t) part, SEEK_CUR) < 0)
                                rc = -errno;
                } else
                        rc = write_whole(fd, content->buffer + at, part);
                if (rc < 0)
                        return rc;
        }
        return ftruncate(fd, (off_t) (content->available + length)) < 0 ? -errno : 0;
}

int content_advance(Content *content, uint64_t *ret_available, bool *ret_at_end, Reason *reterr) {
        size_t length = 0;
        int rc = 0;

        if (content->unpacker) {
                rc = unpacker_read(content->unpacker, content->buffer, UNPACK_AT_ONCE, &length, reterr);
                if (rc == 0)
                        rc = disk_draft_reserve(content->draft, content->available + length, reterr);
                if (rc < 0)
                        return rc;
                rc = append(content, length);
                if (rc < 0)
                        return fail_errno(reterr, rc, "cannot write into the cache directory");
        }
        content->available += length;
        if (content->draft)
                disk_draft_tell(content->draft, content_position(content), content->packed);
        *ret_available = content->available;
        *ret_at_end = !content->unpacker || length < UNPACK_AT_ONCE;
        return 0;
}

int content_finish(Content *content, Reason *reterr) {
        int rc = content->draft ? disk_draft_commit(content->draft, reterr) : 0;

        if (rc == 0 && content->draft)
                content->unpacker = unpacker_free(content->unpacker);
        return rc;
}
