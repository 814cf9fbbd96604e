#include "formats/disk-cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include "util/bytes.h"
#include "util/directory.h"
#include "util/io.h"
#include "util/text.h"

#define PARTIAL ".partial"
#define PROGRESS "user.virtbackupfs.progress" /* of a partial file: "DONE TOTAL" */
#define NAME_LIMIT 80
#define RESERVE_STEP (64u << 20) /* bytes that are asked for at once */

struct DiskCache {
        char *path; /* NULL: none is known */
        uint64_t limit;
};

struct DiskDraft {
        DiskCache *cache;
        char name[NAME_LIMIT];
        int directory_fd, fd;
        uint64_t reserved;
        unsigned told; /* percent; UINT_MAX: nothing yet */
        bool committed;
};

static char *default_path(void) {
        const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
        char *path = NULL;

        if (geteuid() == 0)
                return strdup("/var/cache/virtbackupfs");
        if (cache && *cache == '/')
                return text_format(&path, "%s/virtbackupfs", cache) < 0 ? NULL : path;
        if (home && *home == '/')
                return text_format(&path, "%s/.cache/virtbackupfs", home) < 0 ? NULL : path;
        return NULL;
}

int disk_cache_new(const char *path, uint64_t limit, DiskCache **ret) {
        DiskCache *cache = calloc(1, sizeof *cache);

        if (!cache)
                return -ENOMEM;
        cache->path = path ? strdup(path) : default_path();
        cache->limit = limit;
        if (path && !cache->path) {
                free(cache);
                return -ENOMEM;
        }
        *ret = cache;
        return 0;
}

DiskCache *disk_cache_free(DiskCache *cache) {
        if (cache)
                free(cache->path);
        free(cache);
        return NULL;
}

#define HINT "XDG_CACHE_HOME, or the mount option cache_dir=, names another one"

/* The directory, which has to be nobody else's: what is read from it is believed. */
static int open_directory(const DiskCache *cache, bool make, int *ret, Reason *reterr) {
        CLEANUP(close_fd) int fd = -1;
        struct stat st;

        if (!cache->path)
                return fail(reterr, -ENOENT, "there is no cache directory, as neither XDG_CACHE_HOME nor HOME is set: "
                            HINT);
        for (char *slash = strchr(cache->path + 1, '/'); make; slash = strchr(slash + 1, '/')) {
                CLEANUP(freep) char *parent =
                        slash ? strndup(cache->path, (size_t) (slash - cache->path)) : strdup(cache->path);

                if (!parent)
                        return fail_oom(reterr);
                if (mkdir(parent, 0700) < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
                        return fail(reterr, -errno, "cannot make the cache directory %s: %s: " HINT, cache->path,
                                    strerrordesc_np(errno));
                if (!slash)
                        break;
        }
        fd = open(cache->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return fail(reterr, -errno, "cannot use the cache directory %s: %s: " HINT, cache->path,
                            strerrordesc_np(errno));
        if (fstat(fd, &st) < 0)
                return fail_errno(reterr, -errno, "cannot use the cache directory %s", cache->path);
        if (st.st_uid != geteuid() || (st.st_mode & 022))
                return fail(reterr, -EPERM, "the cache directory %s is another user's, or others can write to it: " HINT,
                            cache->path);
        *ret = STEAL_FD(fd);
        return 0;
}

int disk_cache_open(DiskCache *cache, const char *key, const char *kind, int *ret_fd, Reason *reterr) {
        CLEANUP(close_fd) int directory_fd = -1;
        CLEANUP(close_fd) int fd = -1;
        char name[NAME_LIMIT];
        struct stat st;
        int rc;

        rc = open_directory(cache, false, &directory_fd, reterr);
        if (rc < 0)
                return rc;
        snprintf(name, sizeof name, "%s.%s", key, kind);
        fd = open_beneath(directory_fd, name, O_RDONLY | O_NONBLOCK, 0);
        if (fd < 0)
                return fail_errno(reterr, fd, "cannot open %s/%s", cache->path, name);
        if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
                return fail(reterr, -EBADMSG, "%s/%s is no regular file", cache->path, name);
        /* Locked exclusively: it is being deleted. The time of use is its time of change, which backups may look at. */
        if (flock(fd, LOCK_SH | LOCK_NB) < 0)
                return fail(reterr, -ENOENT, "%s/%s is being deleted", cache->path, name);
        (void) futimens(fd, (const struct timespec[]) { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_NOW } });
        *ret_fd = STEAL_FD(fd);
        return 0;
}

int disk_cache_progress(DiskCache *cache, const char *key, const char *kind, uint64_t *ret_done, uint64_t *ret_total) {
        CLEANUP(close_fd) int directory_fd = -1;
        CLEANUP(close_fd) int fd = -1;
        char partial[NAME_LIMIT + sizeof PARTIAL], text[64] = "";
        uint64_t done, total;

        snprintf(partial, sizeof partial, "%s.%s" PARTIAL, key, kind);
        if (open_directory(cache, false, &directory_fd, NULL) < 0)
                return -ENOENT;
        fd = open_beneath(directory_fd, partial, O_RDONLY | O_NONBLOCK, 0);
        if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) == 0) /* a leftover */
                return -ENOENT;
        if (fgetxattr(fd, PROGRESS, text, sizeof text - 1) < 0 || sscanf(text, "%" SCNu64 " %" SCNu64, &done, &total) != 2 ||
            total == 0 || done > total)
                return -ENOENT;
        *ret_done = done;
        *ret_total = total;
        return 0;
}

void disk_cache_delete(DiskCache *cache, const char *key, const char *kind) {
        CLEANUP(close_fd) int directory_fd = -1;
        char name[NAME_LIMIT];

        snprintf(name, sizeof name, "%s.%s", key, kind);
        if (open_directory(cache, false, &directory_fd, NULL) == 0)
                (void) unlinkat(directory_fd, name, 0);
}

/* Deletes a file where nobody uses it. */
static bool delete_unused(int directory_fd, const char *name) {
        CLEANUP(close_fd) int fd = open_beneath(directory_fd, name, O_RDONLY | O_NONBLOCK, 0);

        return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && unlinkat(directory_fd, name, 0) == 0;
}

/* What is in the directory: the sum, and which whole file was used longest ago after a moment. */
typedef struct Survey {
        int directory_fd;
        uint64_t used;              /* bytes */
        struct timespec after;      /* only what was used later */
        struct timespec oldest_use;
        char oldest[NAME_LIMIT];    /* "": none */
} Survey;

static bool is_earlier(struct timespec a, struct timespec b) {
        return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

static bool ends_with(const char *text, const char *end) {
        size_t length = strlen(text), end_length = strlen(end);

        return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static int see(void *context, const char *name) {
        Survey *survey = context;
        struct stat st;

        if (strlen(name) >= NAME_LIMIT || strspn(name, "0123456789abcdef") != DISK_CACHE_KEY_LENGTH ||
            fstatat(survey->directory_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
                return 0;
        if (ends_with(name, PARTIAL) && delete_unused(survey->directory_fd, name))
                return 0;
        survey->used += (uint64_t) st.st_blocks * 512;
        if (!ends_with(name, PARTIAL) && is_earlier(survey->after, st.st_mtim) &&
            (!*survey->oldest || is_earlier(st.st_mtim, survey->oldest_use))) {
                survey->oldest_use = st.st_mtim;
                snprintf(survey->oldest, sizeof survey->oldest, "%s", name);
        }
        return 0;
}

static int look(Survey *survey, Reason *reterr) {
        survey->used = 0;
        survey->oldest[0] = 0;
        return scan_directory(survey->directory_fd, ".", see, survey, reterr);
}

static int find_limit(const DiskDraft *draft, uint64_t used, uint64_t *ret, Reason *reterr) {
        struct statvfs fs;

        *ret = draft->cache->limit;
        if (*ret > 0)
                return 0;
        if (fstatvfs(draft->directory_fd, &fs) < 0)
                return fail_errno(reterr, -errno, "cannot use the cache directory %s", draft->cache->path);
        *ret = ((uint64_t) fs.f_bavail * fs.f_frsize + used) / 2;
        return 0;
}

int disk_draft_reserve(DiskDraft *draft, uint64_t length, Reason *reterr) {
        Survey survey = { .directory_fd = draft->directory_fd };
        struct stat st;

        if (length <= draft->reserved)
                return 0;
        if (fstat(draft->fd, &st) < 0)
                return fail_errno(reterr, -errno, "cannot use the cache directory %s", draft->cache->path);
        for (;;) {
                uint64_t others, limit, wanted;
                int rc = look(&survey, reterr);

                if (rc == 0)
                        rc = find_limit(draft, survey.used, &limit, reterr);
                if (rc < 0)
                        return rc;
                others = survey.used - min_u64(survey.used, (uint64_t) st.st_blocks * 512);
                wanted = length + min_u64(RESERVE_STEP, limit / 16);
                if (wanted <= limit && others <= limit - wanted) {
                        draft->reserved = wanted;
                        return 0;
                }
                if (length > limit || !*survey.oldest) {
                        if (length <= limit && others <= limit - length)
                                return 0;
                        return fail(reterr, -ENOSPC, "%" PRIu64 " MiB in the cache directory %s are not enough: raise the "
                                                     "limit (mount option cache_dir_size=) or name another directory "
                                                     "(cache_dir=)",
                                    limit >> 20, draft->cache->path);
                }
                if (!delete_unused(draft->directory_fd, survey.oldest))
                        survey.after = survey.oldest_use;
        }
}

/* The partial file, which was not deleted between its opening and its locking. 1: it was. */
static int open_partial(DiskDraft *draft, const char *partial, Reason *reterr) {
        CLEANUP(close_fd) int fd = open_beneath(draft->directory_fd, partial, O_RDWR | O_CREAT | O_NONBLOCK, 0600);
        struct stat st, named;

        if (fd < 0)
                return fail_errno(reterr, fd, "cannot make %s/%s", draft->cache->path, partial);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0)
                return errno == EWOULDBLOCK ? -EBUSY : fail_errno(reterr, -errno, "cannot lock %s", partial);
        if (fstat(fd, &st) < 0 || fstatat(draft->directory_fd, partial, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
            st.st_ino != named.st_ino)
                return 1;
        if (!S_ISREG(st.st_mode) || ftruncate(fd, 0) < 0)
                return fail(reterr, -EIO, "cannot make %s/%s", draft->cache->path, partial);
        draft->fd = STEAL_FD(fd);
        return 0;
}

int disk_draft_new(DiskCache *cache, const char *key, const char *kind, DiskDraft **ret, Reason *reterr) {
        CLEANUP(disk_draft_freep) DiskDraft *draft = calloc(1, sizeof *draft);
        char partial[NAME_LIMIT + sizeof PARTIAL];
        int rc;

        if (!draft)
                return fail_oom(reterr);
        *draft = (DiskDraft) { .cache = cache, .directory_fd = -1, .fd = -1, .told = UINT_MAX };
        rc = open_directory(cache, true, &draft->directory_fd, reterr);
        if (rc < 0)
                return rc;
        snprintf(draft->name, sizeof draft->name, "%s.%s", key, kind);
        snprintf(partial, sizeof partial, "%s" PARTIAL, draft->name);
        do
                rc = open_partial(draft, partial, reterr);
        while (rc == 1);
        if (rc < 0)
                return rc;
        if (faccessat(draft->directory_fd, draft->name, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
                return -EEXIST;
        *ret = STEAL_PTR(draft);
        return 0;
}

int disk_draft_fd(const DiskDraft *draft) {
        return draft->fd;
}

void disk_draft_tell(DiskDraft *draft, uint64_t done, uint64_t total) {
        unsigned percent = total > 0 ? (unsigned) ((double) done / (double) total * 100) : 0;
        char text[64];

        if (percent == draft->told)
                return;
        snprintf(text, sizeof text, "%" PRIu64 " %" PRIu64, done, total);
        (void) fsetxattr(draft->fd, PROGRESS, text, strlen(text), 0);
        draft->told = percent;
}

int disk_draft_commit(DiskDraft *draft, Reason *reterr) {
        char partial[NAME_LIMIT + sizeof PARTIAL];

        snprintf(partial, sizeof partial, "%s" PARTIAL, draft->name);
        (void) fremovexattr(draft->fd, PROGRESS);
        /* From now on it is used like any other. */
        if (fsync(draft->fd) < 0 || flock(draft->fd, LOCK_SH) < 0 ||
            renameat(draft->directory_fd, partial, draft->directory_fd, draft->name) < 0 ||
            sync_directory(draft->directory_fd, ".") < 0)
                return fail_errno(reterr, -errno, "cannot make %s/%s", draft->cache->path, draft->name);
        draft->committed = true;
        return 0;
}

DiskDraft *disk_draft_free(DiskDraft *draft) {
        char partial[NAME_LIMIT + sizeof PARTIAL];

        if (!draft)
                return NULL;
        snprintf(partial, sizeof partial, "%s" PARTIAL, draft->name);
        if (draft->fd >= 0 && !draft->committed)
                (void) unlinkat(draft->directory_fd, partial, 0);
        close_fd(&draft->fd);
        close_fd(&draft->directory_fd);
        free(draft);
        return NULL;
}
