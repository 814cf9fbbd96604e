#include "formats/virtnbdbackup/beside.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <string.h>

#include "formats/virtnbdbackup/domain.h"
#include "util/bytes.h"
#include "util/io.h"
#include "util/strings.h"
#include "util/text.h"

#define DISK_END ".qcow.json" /* DEVICE.IDENT.qcow.json: of the image that the disk was */
#define DISK_INFORMATION_MAX (1u << 20) /* bytes */
#define CHECKPOINTS "checkpoints"

typedef struct Beside {
        const Survey *survey;
        const Backups *backups;
        const Backup **by_ident; /* all but differentials, sorted by place and ident */
        size_t by_ident_count;
        const Backup **by_time; /* differentials, sorted by place and time */
        size_t by_time_count;
} Beside;

static void beside_clear(Beside *beside) {
        free(beside->by_ident);
        free(beside->by_time);
}

static int compare_places(const Backup *a, const Backup *b) {
        return (a->place > b->place) - (a->place < b->place);
}

static int compare_idents(const void *a, const void *b) {
        const Backup *x = *(const Backup *const *) a, *y = *(const Backup *const *) b;

        return compare_places(x, y) ?: strcmp(x->ident, y->ident);
}

static int compare_moments(const void *a, const void *b) {
        const Backup *x = *(const Backup *const *) a, *y = *(const Backup *const *) b;

        return compare_places(x, y) ?: (x->time.tv_sec > y->time.tv_sec) - (x->time.tv_sec < y->time.tv_sec);
}

static int prepare(const Survey *survey, const Backups *backups, Beside *ret) {
        *ret = (Beside) {
                .survey = survey,
                .backups = backups,
                .by_ident = calloc(backups->count + 1, sizeof *ret->by_ident),
                .by_time = calloc(backups->count + 1, sizeof *ret->by_time),
        };
        if (!ret->by_ident || !ret->by_time)
                return -ENOMEM;
        for (size_t i = 0; i < backups->count; i++) {
                const Backup *backup = &backups->backups[i];

                if (backup_is_empty(backups, backup))
                        continue;
                if (backup->level == NAME_DIFFERENTIAL)
                        ret->by_time[ret->by_time_count++] = backup;
                else
                        ret->by_ident[ret->by_ident_count++] = backup;
        }
        qsort(ret->by_ident, ret->by_ident_count, sizeof *ret->by_ident, compare_idents);
        qsort(ret->by_time, ret->by_time_count, sizeof *ret->by_time, compare_moments);
        return 0;
}

/* The backups of the place with this ident: several where the tool gives several one. */
static size_t find_idents(const Beside *beside, size_t place, const char *ident, const Backup *const **ret) {
        Backup wanted = { .place = place, .ident = ident };
        const Backup *key = &wanted;
        size_t low = 0, high = beside->by_ident_count, end;

        while (low < high) {
                size_t middle = low + (high - low) / 2;

                if (compare_idents(&beside->by_ident[middle], &key) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        for (end = low; end < beside->by_ident_count && compare_idents(&beside->by_ident[end], &key) == 0;)
                end++;
        *ret = (const Backup *const *) beside->by_ident + low;
        return end - low;
}

/* The differential backup that was running then: the ident of what goes with it is the moment at which that was written. */
static size_t find_moment(const Beside *beside, size_t place, const char *ident, const Backup *const **ret) {
        size_t digits = strspn(ident, "0123456789"), best = SIZE_MAX;
        long long moment;

        if (ident[digits] != '\0' || digits < 9 || digits > 12)
                return 0;
        moment = atoll(ident);
        for (size_t i = 0; i < beside->by_time_count; i++)
                if (beside->by_time[i]->place == place && beside->by_time[i]->time.tv_sec <= moment)
                        best = i;
        if (best == SIZE_MAX)
                return 0;
        *ret = (const Backup *const *) beside->by_time + best;
        return 1;
}

static int add_kept(const Beside *beside, const Item *item, const Backup *backup, const char *name) {
        CLEANUP(item_location_clear) ItemLocation at = { 0 };
        FoundKept kept = { .point = backup->key, .name = name, .length = item->length, .time = backup->time };

        if (item_location(beside->survey, item, item->member ? "virtnbdbackup" : "raw", UINT64_MAX, &at) < 0)
                return -ENOMEM;
        kept.location = at.location;
        return found_add_kept(beside->survey->directory, &kept);
}

/* 1 where the ident is one of the place's: what has it is kept as this. */
static int keep_as(const Beside *beside, const Item *item, const char *ident, const char *name) {
        const Backup *const *of;
        size_t count = find_idents(beside, item->place, ident, &of);
        int rc = 0;

        count = count ?: find_moment(beside, item->place, ident, &of);
        for (size_t i = 0; rc >= 0 && i < count; i++)
                rc = add_kept(beside, item, of[i], name);
        if (count > 0)
                item_claim(item);
        return rc < 0 ? rc : count > 0;
}

static bool is_of_disk(const BackupStream *stream, const char *device) {
        return strcmp(stream->stream->device, device) == 0 || strcmp(stream->stream->metadata.disk, device) == 0;
}

static bool has_disk(const Backups *backups, const Backup *backup, const char *device) {
        for (size_t i = backup->first; i < backup->first + backup->count; i++)
                if (is_of_disk(&backups->streams[i], device))
                        return true;
        for (size_t i = 0; i < backups->stream_count; i++) /* raw ones lie apart */
                if (&backups->backups[backups->streams[i].backup] == backup && is_of_disk(&backups->streams[i], device))
                        return true;
        return false;
}

/* What `qemu-img info` told of the disk; 0: nothing that is understood. */
static uint64_t told_size(const Beside *beside, const Item *item) {
        CLEANUP(freep) char *text = NULL;
        json_t *object;
        json_int_t size;

        if (item->length > DISK_INFORMATION_MAX || item_text(beside->survey, item, DISK_INFORMATION_MAX, &text, NULL) < 0)
                return 0;
        object = json_loads(text, 0, NULL);
        size = json_integer_value(json_object_get(object, "virtual-size"));
        json_decref(object);
        return size > 0 ? (uint64_t) size : 0;
}

/* The tool writes such a file for each disk that it has backed up, and nothing else tells that a stream is not there: the
 * point would be without the disk, and look whole. */
static int tell_lost_disk(const Beside *beside, const Item *item, const Backup *backup, const char *device) {
        const BackupStream *first = &beside->backups->streams[backup->first];
        const Place *place = &beside->survey->places[backup->place];
        CLEANUP(item_location_clear) ItemLocation at = { 0 };
        CLEANUP(freep) char *problem = NULL;
        FoundLayer layer = {
                .vm = place->vm,
                .vm_uuid = place->vm_uuid,
                .point = backup->key,
                .parent = first->parent,
                .disk = device,
                .kind = backup->level == NAME_INCREMENT ? FOUND_INCREMENTAL
                      : backup->level == NAME_DIFFERENTIAL ? FOUND_DIFFERENTIAL : FOUND_FULL,
                .time = backup->time,
                .size = told_size(beside, item),
        };

        if (text_format(&problem, "%s was backed up, as %s tells, but its data are not here, or cannot be read", device,
                        item->name) < 0)
                return -ENOMEM;
        if (item_location(beside->survey, item, "virtnbdbackup", UINT64_MAX, &at) < 0)
                return -ENOMEM;
        layer.problem = problem;
        layer.location = at.location;
        return found_add_layer(beside->survey->directory, &layer);
}

/* "DEVICE.IDENT.qcow.json" */
static int keep_disk_information(const Beside *beside, const Item *item) {
        const char *dot = strchr(item->name, '.');
        size_t length = strlen(item->name), end = strlen(DISK_END);
        CLEANUP(freep) char *ident = NULL, *name = NULL, *device = NULL;
        const Backup *const *of;
        int rc;

        if (!dot || length <= end || dot + 1 >= item->name + length - end ||
            strcmp(item->name + length - end, DISK_END) != 0)
                return 0;
        ident = strndup(dot + 1, (size_t) (item->name + length - end - dot - 1));
        device = strndup(item->name, (size_t) (dot - item->name));
        if (!ident || !device || text_format(&name, "%s%s", device, DISK_END) < 0)
                return -ENOMEM;
        rc = keep_as(beside, item, ident, name);
        /* Of several backups with this ident, whose disk it was is not known. */
        if (rc > 0 && (find_idents(beside, item->place, ident, &of) ?: find_moment(beside, item->place, ident, &of)) == 1 &&
            !has_disk(beside->backups, of[0], device) && tell_lost_disk(beside, item, of[0], device) < 0)
                return -ENOMEM;
        return rc;
}

/* "vmconfig.IDENT.xml" */
static int keep_definition(const Beside *beside, const Item *item) {
        CLEANUP(freep) char *ident = NULL;
        const char *begin;
        size_t length;

        if (!domain_name_parse(item->name, &begin, &length))
                return 0;
        ident = strndup(begin, length);
        return ident ? keep_as(beside, item, ident, "domain.xml") : -ENOMEM;
}

/* "NAME.IDENT" */
static int keep_other(const Beside *beside, const Item *item) {
        for (const char *dot = strchr(item->name, '.'); dot; dot = strchr(dot + 1, '.')) {
                CLEANUP(freep) char *name = strndup(item->name, (size_t) (dot - item->name));
                int rc = name ? (*name ? keep_as(beside, item, dot + 1, name) : 0) : -ENOMEM;

                if (rc != 0)
                        return rc;
        }
        return 0;
}

/* What a copy keeps has no ident: it is known by the definition. */
static int keep_boot_files(const Beside *beside, const Backup *backup) {
        CLEANUP(strings_free) Strings names = { 0 };
        int rc = domain_boot_files(beside->survey, backup->place, &names);

        for (size_t i = 0; rc >= 0 && i < names.count; i++) {
                const Item *item = survey_find(beside->survey, backup->place, names.items[i]);

                if (!item)
                        continue;
                item_claim(item);
                rc = add_kept(beside, item, backup, names.items[i]);
        }
        return rc;
}

/* The checkpoint that the backup made, from the directory of checkpoints, which is open. */
static int keep_checkpoint(const Beside *beside, const Backup *backup, int checkpoints) {
        const Stream *stream = beside->backups->streams[backup->first].stream;
        CLEANUP(freep) char *name = NULL, *path = NULL;
        FoundKept kept = { .point = backup->key, .name = "checkpoint.xml", .time = backup->time };
        struct stat st;

        if (backup->place != 0 || !stream_makes_checkpoint(stream) || strchr(stream->metadata.checkpoint, '/'))
                return 0;
        if (text_format(&name, CHECKPOINTS "/%s.xml", stream->metadata.checkpoint) < 0)
                return -ENOMEM;
        if (fstatat(checkpoints, name + strlen(CHECKPOINTS "/"), &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
                return 0;
        path = found_path(beside->survey->directory, name);
        if (!path)
                return -ENOMEM;
        kept.length = (uint64_t) st.st_size;
        kept.location = (LayerLocation) { "raw", path, NULL, kept.length, found_seal(&st) };
        return found_add_kept(beside->survey->directory, &kept);
}

/* The checkpoint of a zip file's backup: there is no directory, and it is the only one that is made. */
static int keep_checkpoint_member(const Beside *beside, const Item *item) {
        const char *dot = strrchr(item->name, '.');
        CLEANUP(freep) char *ident = NULL;

        if (!item->member || strncmp(item->member->name, CHECKPOINTS "/", strlen(CHECKPOINTS "/")) != 0 || !dot ||
            strcmp(dot, ".xml") != 0)
                return 0;
        ident = strndup(item->name, (size_t) (dot - item->name));
        return ident ? keep_as(beside, item, ident, "checkpoint.xml") : -ENOMEM;
}

static bool has_end(const char *name, const char *end) {
        size_t length = strlen(name);

        return length > strlen(end) && strcmp(name + length - strlen(end), end) == 0;
}

/* Whether the tool left it where it ran when it wrote a zip file, which has it too. */
static bool is_in_archive(const Survey *survey, const Item *item) {
        for (size_t place = 1; item->place == 0 && place < survey->place_count; place++)
                if (survey_find(survey, place, item->name))
                        return true;
        return false;
}

/* What is of no use to whoever reads points. */
static bool is_of_the_tool(const char *name) {
        return has_end(name, ".data.chksum") || has_end(name, ".cpt") || log_file_is(name);
}

static int add_item(const Beside *beside, const Item *item) {
        DataName data;
        int rc;

        if (data_name_parse(item->name, &data) || item->length > INT64_MAX)
                return 0;
        if (is_of_the_tool(item->name) || is_in_archive(beside->survey, item)) {
                item_claim(item);
                return 0;
        }
        rc = keep_checkpoint_member(beside, item);
        rc = rc ?: keep_definition(beside, item);
        rc = rc ?: keep_disk_information(beside, item);
        return rc ?: keep_other(beside, item);
}

/* Negative where there is none. */
static int open_checkpoints(FoundDirectory *directory) {
        FoundEntry *entry = found_entry(directory, CHECKPOINTS);
        CLEANUP(freep) char *path = NULL;

        if (!entry || !S_ISDIR(entry->st.st_mode))
                return -ENOENT;
        entry->claimed = true;
        path = found_path(directory, CHECKPOINTS);
        return path ? open_beneath(layer_store_root(directory->store), path, O_PATH | O_DIRECTORY, 0) : -ENOMEM;
}

int beside_add(const Survey *survey, const Backups *backups) {
        CLEANUP(beside_clear) Beside beside = { 0 };
        CLEANUP(close_fd) int checkpoints = open_checkpoints(survey->directory);
        int rc = prepare(survey, backups, &beside);

        for (size_t i = 0; rc >= 0 && i < survey->item_count; i++)
                rc = add_item(&beside, &survey->items[i]);
        for (size_t i = 0; rc >= 0 && i < backups->count; i++) {
                const Backup *backup = &backups->backups[i];

                if (backup_is_empty(backups, backup))
                        continue;
                if (checkpoints >= 0)
                        rc = keep_checkpoint(&beside, backup, checkpoints);
                if (rc >= 0 && backup->level == NAME_COPY)
                        rc = keep_boot_files(&beside, backup);
        }
        return rc < 0 ? rc : 0;
}
