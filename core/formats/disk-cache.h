/* core/formats/disk-cache.h - files that can be made again, kept on disk because making them takes long.
 *
 *     DIR/KEY.KIND           whole; who uses it holds a shared lock (flock(2))
 *     DIR/KEY.KIND.partial   being made by whoever holds its exclusive lock; without a lock, a leftover
 * A file gets its name when all of it is on stable storage. The directory is made when the first file is, and used by any
 * number of processes. The sum of the files stays within a limit: those used longest ago go first.
 * Threads: any. */
#pragma once

#include <stdint.h>

#include "util/cleanup.h"
#include "util/reason.h"

#define DISK_CACHE_KEY_LENGTH 32 /* characters, without the NUL */

typedef struct DiskCache DiskCache;
typedef struct DiskDraft DiskDraft; /* a file that is being made */

/* path: NULL: $XDG_CACHE_HOME/virtbackupfs or ~/.cache/virtbackupfs, for root /var/cache/virtbackupfs. limit: bytes; 0: half
 * of what is free there or used by it. Nothing is looked at yet. -ENOMEM. */
int disk_cache_new(const char *path, uint64_t limit, DiskCache **ret);
DiskCache *disk_cache_free(DiskCache *cache); /* always NULL */
DEFINE_CLEANUP(DiskCache, disk_cache_free)

/* A descriptor for reading; closing it ends the use. -ENOENT: not there (or no directory). */
int disk_cache_open(DiskCache *cache, const char *key, const char *kind, int *ret_fd, Reason *reterr);

/* How far a file is that is being made, by whatever process. -ENOENT: nobody makes it, or nobody can tell. */
int disk_cache_progress(DiskCache *cache, const char *key, const char *kind, uint64_t *ret_done, uint64_t *ret_total);

/* For a file that is damaged: nobody shall find it again. */
void disk_cache_delete(DiskCache *cache, const char *key, const char *kind);

/* An empty file to be filled. -EBUSY while another process makes it (reterr is left alone); -EEXIST where it is there by
 * now; -ENOENT and words where no directory is known. */
int disk_draft_new(DiskCache *cache, const char *key, const char *kind, DiskDraft **ret, Reason *reterr);
int disk_draft_fd(const DiskDraft *draft);

/* Asked before the file grows to length bytes: makes room within the limit. -ENOSPC and words. */
int disk_draft_reserve(DiskDraft *draft, uint64_t length, Reason *reterr);

/* Tells others how far it is, in whatever unit. They do not learn it where the directory is on a file system without
 * extended attributes. */
void disk_draft_tell(DiskDraft *draft, uint64_t done, uint64_t total);

/* Syncs it and gives it its name. The draft stays to be freed. */
int disk_draft_commit(DiskDraft *draft, Reason *reterr);

/* Deletes the file where it has not been committed. Always NULL. */
DiskDraft *disk_draft_free(DiskDraft *draft);
DEFINE_CLEANUP(DiskDraft, disk_draft_free)
