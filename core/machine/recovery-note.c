#include "machine/recovery-note.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "repository/document.h"
#include "util/io.h"

#define NOTE_FILE "recovery.json"
#define LOCK_FILE "lock"
#define KIND "virtbackupfs recovery"
#define VERSION 1

void recovery_note_clear(RecoveryNote *note) {
        for (size_t i = 0; i < note->disk_count; i++) {
                free(note->disks[i].name);
                free(note->disks[i].path);
                free(note->disks[i].backing);
        }
        free(note->disks);
        free(note->name);
        free(note->uuid);
        free(note->uri);
        free(note->repository);
        free(note->vm);
        free(note->point);
        strings_free(&note->made);
        *note = (RecoveryNote) { 0 };
}

static json_t *disks_json(const RecoveryNote *note) {
        json_t *list = json_array();

        for (size_t i = 0; i < note->disk_count; i++) {
                const RecoveryDisk *disk = &note->disks[i];
                json_t *object = json_pack("{s:s, s:s, s:s, s:I, s:b}", "name", disk->name, "path", disk->path, "backing",
                                           disk->backing, "size", (json_int_t) disk->size, "settled", (int) disk->settled);

                if (json_array_append_new(list, object) < 0) {
                        json_decref(list);
                        return NULL;
                }
        }
        return list;
}

static json_t *made_json(const RecoveryNote *note) {
        json_t *list = json_array();

        for (size_t i = 0; i < note->made.count; i++)
                if (json_array_append_new(list, json_string(note->made.items[i])) < 0) {
                        json_decref(list);
                        return NULL;
                }
        return list;
}

int recovery_note_write(int directory_fd, const RecoveryNote *note, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *object = document_new(KIND, VERSION);
        CLEANUP(json_decrefp) json_t *more = NULL;

        more = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:o, s:o}", "name", note->name, "uuid", note->uuid, "uri",
                         note->uri, "repository", note->repository, "vm", note->vm, "point", note->point, "started",
                         (int) note->started, "paused", (int) note->paused, "disks", disks_json(note), "made",
                         made_json(note));
        if (!more)
                return fail(reterr, -EINVAL, "the recovery cannot be written down: a path is no UTF-8");
        if (!object || json_object_update(object, more) < 0)
                return fail_oom(reterr);
        return sealed_json_replace(directory_fd, NOTE_FILE, object, reterr);
}

static int take_disk(const json_t *object, RecoveryDisk *disk, Reason *reterr) {
        int rc;

        rc = json_take_copy(object, "name", &disk->name, reterr);
        if (rc == 0)
                rc = json_take_copy(object, "path", &disk->path, reterr);
        if (rc == 0)
                rc = json_take_copy(object, "backing", &disk->backing, reterr);
        if (rc == 0)
                rc = json_take_size(object, "size", &disk->size, reterr);
        disk->settled = json_is_true(json_object_get(object, "settled"));
        return rc;
}

static int take_disks(const json_t *object, RecoveryNote *note, Reason *reterr) {
        json_t *list, *item;
        size_t i;
        int rc;

        rc = json_take_array(object, "disks", &list, reterr);
        if (rc < 0)
                return rc;
        note->disks = calloc(json_array_size(list) + 1, sizeof *note->disks);
        if (!note->disks)
                return fail_oom(reterr);
        json_array_foreach(list, i, item) {
                note->disk_count++;
                rc = take_disk(item, &note->disks[i], reterr);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static int take_made(const json_t *object, RecoveryNote *note, Reason *reterr) {
        json_t *list, *item;
        size_t i;
        int rc;

        rc = json_take_array(object, "made", &list, reterr);
        if (rc < 0)
                return rc;
        json_array_foreach(list, i, item)
                if (json_is_string(item) && strings_add(&note->made, json_string_value(item)) < 0)
                        return fail_oom(reterr);
        return 0;
}

static int take_note(const json_t *object, RecoveryNote *note, Reason *reterr) {
        struct {
                const char *key;
                char **into;
        } texts[] = {
                { "name", &note->name },       { "uuid", &note->uuid }, { "uri", &note->uri },
                { "repository", &note->repository }, { "vm", &note->vm },     { "point", &note->point },
        };
        int rc = document_check(object, KIND, VERSION, reterr);

        for (size_t i = 0; i < sizeof texts / sizeof *texts && rc == 0; i++)
                rc = json_take_copy(object, texts[i].key, texts[i].into, reterr);
        if (rc == 0)
                rc = take_disks(object, note, reterr);
        if (rc == 0)
                rc = take_made(object, note, reterr);
        note->started = json_is_true(json_object_get(object, "started"));
        note->paused = json_is_true(json_object_get(object, "paused"));
        return rc;
}

int recovery_note_read(int directory_fd, RecoveryNote *ret, Reason *reterr) {
        CLEANUP(json_decrefp) json_t *object = NULL;
        CLEANUP(recovery_note_clear) RecoveryNote note = { 0 };
        int rc;

        rc = sealed_json_read(directory_fd, NOTE_FILE, &object, reterr);
        if (rc == 0)
                rc = take_note(object, &note, reterr);
        if (rc < 0)
                return rc;
        *ret = note;
        note = (RecoveryNote) { 0 };
        return 0;
}

int recovery_note_lock(int directory_fd, int *ret_fd, Reason *reterr) {
        struct flock whole_file = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
        CLEANUP(close_fd) int fd = open_beneath(directory_fd, LOCK_FILE, O_RDWR | O_CREAT, 0600);

        if (fd < 0)
                return fail_errno(reterr, fd, "cannot open the recovery's lock");
        if (fcntl(fd, F_OFD_SETLK, &whole_file) < 0)
                return errno == EAGAIN || errno == EACCES ? fail(reterr, -EBUSY, "another process recovers it")
                                                          : fail_errno(reterr, -errno, "cannot lock the recovery");
        *ret_fd = STEAL_FD(fd);
        return 0;
}
