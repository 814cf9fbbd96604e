#include "restore/restore.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "repository/manifest.h"
#include "restore/target.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/directory.h"
#include "util/io.h"
#include "util/sealed-json.h"
#include "util/text.h"

/* {"format": …, "version": 1, "what": TEXT, "disks": [NAME, …]}: which disks are there already; gone when all is. */
#define NOTE ".virtbackupfs-restore.json"
#define NOTE_FORMAT "virtbackupfs unfinished restore of a point"

#define PIECE (1u << 20) /* bytes of a kept file at once */

typedef struct PointRestore {
        Vm *vm;
        const Manifest *manifest;
        const char *directory;
        int fd;               /* of the directory */
        const char *format;   /* "raw", "qcow2" */
        const RestoreOptions *options;
        json_t *done;         /* names of the disks that are there */
        bool goes_on;
        size_t disk;          /* which is under way */
        RestoreProgress *progress; /* one a disk */
} PointRestore;

static void clear(PointRestore *restore) {
        close_fd(&restore->fd);
        json_decref(restore->done);
        free(restore->progress);
}

static int make_what(const PointRestore *restore, char **ret, Reason *reterr) {
        if (text_format(ret, "%s/%s %s", restore->manifest->vm_uuid, restore->manifest->capture, restore->format) >= 0)
                return 0;
        *ret = NULL;
        return fail_oom(reterr);
}

static int open_directory(PointRestore *restore, Reason *reterr) {
        if (mkdir(restore->directory, 0755) < 0 && errno != EEXIST)
                return fail_errno(reterr, -errno, "cannot make the directory %s", restore->directory);
        restore->fd = open(restore->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (restore->fd < 0)
                return fail_errno(reterr, -errno, "cannot open the directory %s, as a whole point needs one",
                                  restore->directory);
        return 0;
}

/* What an interrupted restore of the same says; nothing else is taken from the note. */
static void read_note(PointRestore *restore, const char *what) {
        CLEANUP(json_decrefp) json_t *object = NULL;
        const char *format, *found;
        json_t *disks;

        if (sealed_json_read(restore->fd, NOTE, &object, NULL) < 0 ||
            json_take_string(object, "format", &format, NULL) < 0 || strcmp(format, NOTE_FORMAT) != 0 ||
            json_take_string(object, "what", &found, NULL) < 0 || strcmp(found, what) != 0 ||
            json_take_array(object, "disks", &disks, NULL) < 0)
                return;
        json_decref(restore->done);
        restore->done = json_deep_copy(disks);
        restore->goes_on = true;
}

static int write_note(const PointRestore *restore, const char *what, Reason *reterr) {
        json_t *object = json_pack("{s:s,s:i,s:s,s:O}", "format", NOTE_FORMAT, "version", 1, "what", what,
                                   "disks", restore->done);
        int rc = object ? sealed_json_replace(restore->fd, NOTE, object, reterr) : fail_oom(reterr);

        json_decref(object);
        return rc < 0 ? fail_within(reterr, rc, "%s", restore->directory) : 0;
}

static bool is_done(const PointRestore *restore, const char *disk) {
        size_t i;
        json_t *name;

        json_array_foreach(restore->done, i, name)
                if (json_is_string(name) && strcmp(json_string_value(name), disk) == 0)
                        return true;
        return false;
}

static int check_free(const PointRestore *restore, const char *name, const char *suffix, Reason *reterr) {
        CLEANUP(freep) char *file = NULL;
        struct stat st;

        if (text_format(&file, "%s%s", name, suffix) < 0)
                return fail_oom(reterr);
        if (fstatat(restore->fd, file, &st, AT_SYMLINK_NOFOLLOW) == 0)
                return fail(reterr, -EEXIST, "%s/%s is there already: --force replaces it", restore->directory, file);
        return errno == ENOENT ? 0 : fail_errno(reterr, -errno, "cannot look at %s/%s", restore->directory, file);
}

/* Before anything is written. */
static int check_all_free(const PointRestore *restore, Reason *reterr) {
        const Manifest *manifest = restore->manifest;
        const char *suffix = strcmp(restore->format, "raw") == 0 ? ".raw" : ".qcow2";
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < manifest->disk_count; i++)
                rc = check_free(restore, manifest->disks[i].name, suffix, reterr);
        for (size_t i = 0; rc == 0 && i < manifest->file_count; i++)
                rc = check_free(restore, manifest->files[i].name, "", reterr);
        return rc;
}

/* A disk's progress becomes one of all disks'. */
static void pass_progress(void *context, const RestoreProgress *disk, size_t count) {
        PointRestore *restore = context;

        (void) count;
        restore->progress[restore->disk].done = disk->done;
        restore->progress[restore->disk].total = disk->total;
        restore->options->progress(restore->options->context, restore->progress, restore->manifest->disk_count);
}

static void pass_skipped(void *context, const char *disk, uint64_t start, uint64_t length, const Reason *why) {
        const RestoreOptions *options = ((PointRestore *) context)->options;

        options->skipped(options->context, disk, start, length, why);
}

static void pass_tell(void *context, const char *line) {
        const RestoreOptions *options = ((PointRestore *) context)->options;

        options->tell(options->context, line);
}

static int restore_one(PointRestore *restore, uint64_t *skipped, Reason *reterr) {
        const char *disk = restore->manifest->disks[restore->disk].name;
        CLEANUP(freep) char *target = NULL;
        RestoreOptions options = *restore->options;
        uint64_t of_disk = 0;
        int rc;

        if (text_format(&target, "%s/%s.%s", restore->directory, disk, restore->format) < 0)
                return fail_oom(reterr);
        options.format = restore->format;
        options.replace |= restore->goes_on; /* the names were free, or might be replaced, when it began */
        options.progress = options.progress ? pass_progress : NULL;
        options.skipped = options.skipped ? pass_skipped : NULL;
        options.tell = options.tell ? pass_tell : NULL;
        options.context = restore;
        rc = restore_disk(restore->vm, restore->manifest->name, disk, target, &options, &of_disk, reterr);
        if (rc < 0)
                return rc;
        *skipped += of_disk;
        restore->progress[restore->disk].done = restore->progress[restore->disk].total;
        return json_array_append_new(restore->done, json_string(disk)) < 0 ? fail_oom(reterr) : 0;
}

/* Piece by piece: the RAM of a VM is kept as a file, too. Zeroes become holes. */
static int copy_file(const PointRestore *restore, Layer *layer, int fd, Reason *reterr) {
        CLEANUP(freep) char *piece = malloc(PIECE);
        uint64_t size = layer_disk_size(layer);
        int rc = piece ? 0 : fail_oom(reterr);

        for (uint64_t at = 0; rc == 0 && at < size; at += PIECE) {
                size_t length = (size_t) min_u64(PIECE, size - at);

                if (restore->options->cancel && atomic_load(restore->options->cancel))
                        return fail(reterr, -ECANCELED, "interrupted");
                rc = layer_read_filled(layer, piece, length, at, reterr);
                if (rc < 0 || bytes_are_zero(piece, length))
                        continue;
                rc = pwrite_whole(fd, piece, length, at);
                if (rc < 0)
                        return fail_errno(reterr, rc, "cannot write");
        }
        if (rc < 0)
                return rc;
        return ftruncate(fd, (off_t) size) < 0 || fsync(fd) < 0 ? fail_errno(reterr, -errno, "cannot write") : 0;
}

/* Under another name until it is whole. */
static int write_file(const PointRestore *restore, const ManifestFile *file, Reason *reterr) {
        CLEANUP(layer_unrefp) Layer *layer = NULL;
        CLEANUP(freep) char *partial = NULL;
        CLEANUP(close_fd) int fd = -1;
        int rc = manifest_open_file(restore->vm, restore->manifest, file, &layer, reterr);

        if (rc < 0)
                return rc;
        if (text_format(&partial, "%s.partial", file->name) < 0)
                return fail_oom(reterr);
        if (unlinkat(restore->fd, partial, 0) < 0 && errno != ENOENT)
                return fail_errno(reterr, -errno, "cannot replace %s/%s", restore->directory, partial);
        fd = openat(restore->fd, partial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd < 0)
                return fail_errno(reterr, -errno, "cannot make %s/%s", restore->directory, partial);
        rc = copy_file(restore, layer, fd, reterr);
        if (rc == 0 && renameat(restore->fd, partial, restore->fd, file->name) < 0)
                rc = fail_errno(reterr, -errno, "cannot name it");
        if (rc < 0)
                (void) unlinkat(restore->fd, partial, 0);
        return rc < 0 ? fail_within(reterr, rc, "%s/%s", restore->directory, file->name) : 0;
}

/* The definition comes last: it is what makes the disks a machine. */
static int write_files(const PointRestore *restore, Reason *reterr) {
        const Manifest *manifest = restore->manifest;
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < manifest->file_count; i++)
                rc = write_file(restore, &manifest->files[i], reterr);
        if (rc < 0)
                return rc;
        if (unlinkat(restore->fd, NOTE, 0) < 0)
                return fail_errno(reterr, -errno, "cannot remove %s/" NOTE, restore->directory);
        rc = sync_directory(restore->fd, ".");
        return rc < 0 ? fail_errno(reterr, rc, "cannot sync %s", restore->directory) : 0;
}

static int begin(PointRestore *restore, const char *what, Reason *reterr) {
        const Manifest *manifest = restore->manifest;
        int rc;

        restore->done = json_array();
        restore->progress = calloc(manifest->disk_count + 1, sizeof *restore->progress);
        if (!restore->done || !restore->progress)
                return fail_oom(reterr);
        rc = open_directory(restore, reterr);
        if (rc < 0)
                return rc;
        read_note(restore, what);
        for (size_t i = 0; i < manifest->disk_count; i++) {
                const ManifestDisk *disk = &manifest->disks[i];
                uint64_t allocated = manifest_disk_allocated(disk);
                uint64_t total = allocated == ALLOCATED_UNKNOWN ? 0 : allocated * (restore->options->verify ? 2 : 1);

                restore->progress[i] = (RestoreProgress) { disk->name, is_done(restore, disk->name) ? total : 0, total };
        }
        if (!restore->goes_on && !restore->options->replace)
                rc = check_all_free(restore, reterr);
        return rc < 0 ? rc : write_note(restore, what, reterr);
}

int restore_point(Vm *vm, const char *point, const char *directory, const RestoreOptions *options, uint64_t *ret_skipped,
                  Reason *reterr) {
        CLEANUP(clear) PointRestore restore = { .vm = vm, .directory = directory, .fd = -1, .options = options };
        CLEANUP(manifest_unrefp) Manifest *manifest = NULL;
        CLEANUP(freep) char *what = NULL;
        uint64_t skipped = 0;
        int rc;

        rc = target_format("", options->format, &restore.format, reterr);
        if (rc == 0)
                rc = manifest_read(vm, point, &manifest, reterr);
        if (rc < 0)
                return rc;
        restore.manifest = manifest;
        rc = make_what(&restore, &what, reterr);
        if (rc == 0)
                rc = begin(&restore, what, reterr);
        for (; rc == 0 && restore.disk < manifest->disk_count; restore.disk++) {
                if (is_done(&restore, manifest->disks[restore.disk].name))
                        continue;
                rc = restore_one(&restore, &skipped, reterr);
                if (rc == 0)
                        rc = write_note(&restore, what, reterr);
        }
        if (rc == 0)
                rc = write_files(&restore, reterr);
        if (rc == 0)
                *ret_skipped = skipped;
        return rc;
}
