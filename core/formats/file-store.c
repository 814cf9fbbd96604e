/* core/formats/file-store.c - byte stores and sinks that are files. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "formats/byte-store.h"
#include "formats/found.h"
#include "util/bytes.h"
#include "util/io.h"

#define SINK_BUFFER_SIZE (4u << 20)     /* bytes written at once: many requests to the disk, so that it has enough to do */
#define DIRECT_GRAIN 4096u              /* what is written around the page cache begins and ends at multiples of it */
#define WRITE_BEHIND (8u << 20)         /* bytes between pushes to the disk */

typedef struct FileStore {
        ByteStore store;
        int root_fd; /* borrowed */
        Cache *open_files;
        CacheKey key;
        bool sealed;
        uint64_t seal; /* valid where sealed */
} FileStore;

/* Descriptors in the cache are the pointers themselves, plus one: NULL is no value. */
static void *fd_to_value(int fd) {
        return (void *) ((intptr_t) fd + 1);
}

static int value_to_fd(const void *value) {
        return (int) ((intptr_t) value - 1);
}

/* size: NULL, or where the file's goes. */
static int open_file(const FileStore *store, uint64_t *size, Reason *reterr) {
        CLEANUP(close_fd) int fd = -1;
        struct stat st;

        /* O_NONBLOCK: a FIFO in a layer's place must not hold up whoever opens it. */
        fd = open_beneath(store->root_fd, store->store.name, O_RDONLY | O_NONBLOCK, 0);
        if (fd < 0)
                return fail_errno(reterr, fd, "cannot open %s", store->store.name);
        if (fstat(fd, &st) < 0)
                return fail_errno(reterr, -errno, "cannot look at %s", store->store.name);
        if (!S_ISREG(st.st_mode))
                return fail(reterr, -EBADMSG, "%s is no regular file", store->store.name);
        if (store->sealed && found_seal(&st) != store->seal)
                return fail(reterr, -EIO, "%s is another file than it was, or has been changed", store->store.name);
        if (size)
                *size = (uint64_t) st.st_size;
        return STEAL_FD(fd);
}

typedef struct Opening {
        const FileStore *store;
        uint64_t *size;
} Opening;

static int load_fd(void *context, CacheKey key, void **ret, size_t *ret_cost, Reason *reterr) {
        const Opening *opening = context;
        int fd = open_file(opening->store, opening->size, reterr);

        if (fd < 0)
                return fd;
        *ret = fd_to_value(fd);
        *ret_cost = 1;
        return 0;
}

static void free_fd(void *value) {
        close(value_to_fd(value));
}

static const CacheLoader fd_loader = { load_fd, free_fd };

static int file_store_read(ByteStore *byte_store, void *buffer, size_t length, uint64_t offset, Reason *reterr) {
        FileStore *store = (FileStore *) byte_store;
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        int rc;

        rc = cache_get(store->open_files, store->key, &fd_loader, &(Opening) { store, NULL }, &entry, reterr);
        if (rc < 0)
                return rc;
        rc = pread_whole(value_to_fd(cache_value(entry)), buffer, length, offset);
        if (rc == -ENODATA)
                return fail(reterr, -EIO, "%s is shorter than it was", store->store.name);
        return rc < 0 ? fail_errno(reterr, rc, "cannot read %s", store->store.name) : 0;
}

static int file_store_seek(ByteStore *byte_store, uint64_t offset, int whence, uint64_t *ret, Reason *reterr) {
        FileStore *store = (FileStore *) byte_store;
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        off_t found;
        int rc;

        rc = cache_get(store->open_files, store->key, &fd_loader, &(Opening) { store, NULL }, &entry, reterr);
        if (rc < 0)
                return rc;
        found = lseek(value_to_fd(cache_value(entry)), (off_t) offset, whence);
        if (found < 0 && errno != ENXIO)
                return fail_errno(reterr, -errno, "cannot look for holes in %s", store->store.name);
        *ret = found < 0 ? byte_store->size : min_u64((uint64_t) found, byte_store->size);
        return 0;
}

/* The kernel fetches it in the background. */
static void file_store_expect(ByteStore *byte_store, uint64_t offset, uint64_t length) {
        FileStore *store = (FileStore *) byte_store;
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;

        if (cache_get(store->open_files, store->key, &fd_loader, &(Opening) { store, NULL }, &entry, NULL) >= 0)
                (void) posix_fadvise(value_to_fd(cache_value(entry)), (off_t) offset, (off_t) length, POSIX_FADV_WILLNEED);
}

static void file_store_free(ByteStore *byte_store) {
        FileStore *store = (FileStore *) byte_store;

        cache_forget_one(store->open_files, store->key);
        free(store->store.name);
        free(store);
}

static const ByteStoreOps file_store_ops = {
        .read = file_store_read,
        .seek = file_store_seek,
        .expect = file_store_expect,
        .free = file_store_free,
};

static int open_store(int root_fd, const char *path, const uint64_t *seal, Cache *open_files, ByteStore **ret,
                      Reason *reterr) {
        CLEANUP(byte_store_freep) ByteStore *byte_store = NULL;
        CLEANUP(cache_releasep) CacheEntry *entry = NULL;
        FileStore *store = calloc(1, sizeof *store);
        int rc;

        if (!store)
                return fail_oom(reterr);
        *store = (FileStore) {
                .store = { .ops = &file_store_ops, .name = strdup(path) },
                .root_fd = root_fd,
                .open_files = open_files,
                .key = { cache_new_owner(), 0 },
                .sealed = seal != NULL,
                .seal = seal ? *seal : 0,
        };
        byte_store = &store->store;
        if (!byte_store->name)
                return fail_oom(reterr);
        rc = cache_get(open_files, store->key, &fd_loader, &(Opening) { store, &byte_store->size }, &entry, reterr);
        if (rc < 0)
                return rc;
        *ret = STEAL_PTR(byte_store);
        return 0;
}

int file_store_open(int root_fd, const char *path, Cache *open_files, ByteStore **ret, Reason *reterr) {
        return open_store(root_fd, path, NULL, open_files, ret, reterr);
}

int file_store_open_found(int root_fd, const char *path, uint64_t seal, Cache *open_files, ByteStore **ret, Reason *reterr) {
        return open_store(root_fd, path, &seal, open_files, ret, reterr);
}

typedef struct FileSink {
        ByteSink sink;
        int fd;
        bool direct;  /* around the page cache, which costs more than the disk */
        char *buffer; /* begins at a grain */
        size_t filled;
        int error; /* the first: a file with a hole in it is never committed */
        uint64_t written, pushed, dropped; /* bytes: in the file; on their way to the disk; out of the page cache */
} FileSink;

/* An error of the disk that is told here is not told again by fsync(). Not all file systems can do this, nor need to. */
static int push_range(const FileSink *sink, uint64_t start, uint64_t end, unsigned flags) {
        if (sync_file_range(sink->fd, (off_t) start, (off_t) (end - start), flags) == 0 || errno == ENOSYS ||
            errno == EINVAL || errno == ESPIPE || errno == EOPNOTSUPP)
                return 0;
        return -errno;
}

/* Through the page cache from here on: the file's end, or a file system that knows no other way, or not of this size. */
static void write_cached(FileSink *sink) {
        if (!sink->direct)
                return;
        (void) fcntl(sink->fd, F_SETFL, 0);
        sink->direct = false;
        sink->pushed = sink->dropped = sink->written;
}

/* Keeps the disk busy all along rather than all at once when it is synced, and gives pages back once they are written. */
static int write_behind(FileSink *sink) {
        int rc;

        if (sink->direct || sink->written - sink->pushed < WRITE_BEHIND)
                return 0;
        if (sink->pushed > sink->dropped) {
                rc = push_range(sink, sink->dropped, sink->pushed,
                                SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER);
                if (rc < 0)
                        return rc;
                (void) posix_fadvise(sink->fd, (off_t) sink->dropped, (off_t) (sink->pushed - sink->dropped),
                                     POSIX_FADV_DONTNEED);
                sink->dropped = sink->pushed;
        }
        rc = push_range(sink, sink->pushed, sink->written, SYNC_FILE_RANGE_WRITE);
        sink->pushed = sink->written;
        return rc;
}

/* Whether to go on after an error: 0, or what to fail with. */
static int ask_on(const FileSink *sink, unsigned times, int rc) {
        Reason words;

        if (!sink->sink.stuck)
                return rc;
        fail_errno(&words, rc, "cannot write %s", sink->sink.name);
        return sink->sink.stuck(sink->sink.stuck_context, times, rc, words.text);
}

static int write_patiently(FileSink *sink, const char *from, size_t length) {
        unsigned times = 0;

        while (length > 0) {
                ssize_t n;
                int rc;

                if (length < DIRECT_GRAIN)
                        write_cached(sink);
                n = write(sink->fd, from, sink->direct ? round_down(length, DIRECT_GRAIN) : length);
                if (n > 0) {
                        from += n;
                        length -= (size_t) n;
                        sink->written += (size_t) n;
                        times = 0;
                        if (n % DIRECT_GRAIN)
                                write_cached(sink);
                        continue;
                }
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EINVAL && sink->direct) {
                        write_cached(sink);
                        continue;
                }
                rc = ask_on(sink, times++, n < 0 ? -errno : -ENOSPC);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static int write_out(FileSink *sink, const void *buffer, size_t length, Reason *reterr) {
        if (sink->error == 0)
                sink->error = write_patiently(sink, buffer, length);
        if (sink->error == 0)
                sink->error = write_behind(sink);
        return sink->error < 0 ? fail_errno(reterr, sink->error, "cannot write %s", sink->sink.name) : 0;
}

static int flush_buffer(FileSink *sink, Reason *reterr) {
        int rc = sink->filled > 0 ? write_out(sink, sink->buffer, sink->filled, reterr) : 0;

        if (rc == 0)
                sink->filled = 0;
        return rc;
}

static int file_sink_append(ByteSink *byte_sink, const void *buffer, size_t length, Reason *reterr) {
        FileSink *sink = (FileSink *) byte_sink;
        const char *from = buffer;

        while (length > 0) {
                size_t part = min_u64(length, SINK_BUFFER_SIZE - sink->filled);
                int rc;

                memcpy(sink->buffer + sink->filled, from, part);
                sink->filled += part;
                from += part;
                length -= part;
                if (sink->filled < SINK_BUFFER_SIZE)
                        break;
                rc = flush_buffer(sink, reterr);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static int file_sink_commit(ByteSink *byte_sink, Reason *reterr) {
        FileSink *sink = (FileSink *) byte_sink;
        int rc;

        if (sink->error < 0)
                return fail_errno(reterr, sink->error, "cannot write %s", sink->sink.name);
        rc = flush_buffer(sink, reterr);
        if (rc < 0)
                return rc;
        if (fsync(sink->fd) < 0) {
                sink->error = -errno; /* what could not be written is lost to a second try as well */
                return fail_errno(reterr, sink->error, "cannot sync %s", sink->sink.name);
        }
        (void) posix_fadvise(sink->fd, 0, 0, POSIX_FADV_DONTNEED);
        return 0;
}

static void file_sink_free(ByteSink *byte_sink) {
        FileSink *sink = (FileSink *) byte_sink;

        close_fd(&sink->fd);
        free(sink->buffer);
        free(sink->sink.name);
        free(sink);
}

static const ByteSinkOps file_sink_ops = { file_sink_append, file_sink_commit, file_sink_free };

int file_sink_create(int root_fd, const char *path, ByteSink **ret, Reason *reterr) {
        CLEANUP(byte_sink_freep) ByteSink *byte_sink = NULL;
        FileSink *sink = calloc(1, sizeof *sink);

        if (!sink)
                return fail_oom(reterr);
        *sink = (FileSink) {
                .sink = { .ops = &file_sink_ops, .name = strdup(path) },
                .fd = -1,
                .buffer = aligned_alloc(DIRECT_GRAIN, SINK_BUFFER_SIZE),
        };
        byte_sink = &sink->sink;
        if (!byte_sink->name || !sink->buffer)
                return fail_oom(reterr);
        sink->fd = open_beneath(root_fd, path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (sink->fd < 0)
                return fail_errno(reterr, sink->fd, "cannot create %s", path);
        if (fchmod(sink->fd, 0600) < 0)
                return fail_errno(reterr, -errno, "cannot create %s", path);
        sink->direct = fcntl(sink->fd, F_SETFL, O_DIRECT) == 0;
        *ret = STEAL_PTR(byte_sink);
        return 0;
}
