#include "formats/virtnbdbackup/backup.h"

#include <errno.h>
#include <string.h>

#include "formats/virtnbdbackup/log-file.h"
#include "util/text.h"

#define KEY_MARK "(virtnbdbackup)" /* no file's name: two formats never share a point */

static int compare_texts(const char *a, const char *b) {
        return strcmp(a ?: "", b ?: "");
}

static int compare_times(const struct timespec *a, const struct timespec *b) {
        if (a->tv_sec != b->tv_sec)
                return a->tv_sec < b->tv_sec ? -1 : 1;
        return (a->tv_nsec > b->tv_nsec) - (a->tv_nsec < b->tv_nsec);
}

bool stream_makes_checkpoint(const Stream *stream) {
        const Metadata *metadata = &stream->metadata;

        if (!metadata->checkpoint || stream->name.level == NAME_COPY || stream->name.level == NAME_DIFFERENTIAL)
                return false;
        return compare_texts(metadata->checkpoint, metadata->parent) != 0;
}

/* What one run has in common: raw images have none of it, and come last in their place. */
static int compare_runs(const Stream *a, const Stream *b) {
        int order = (a->item->place > b->item->place) - (a->item->place < b->item->place);

        order = order ?: (int) a->is_raw - (int) b->is_raw;
        if (order != 0 || a->is_raw)
                return order;
        order = (a->name.level == NAME_COPY) - (b->name.level == NAME_COPY);
        order = order ?: (a->name.level == NAME_DIFFERENTIAL) - (b->name.level == NAME_DIFFERENTIAL);
        order = order ?: compare_texts(a->metadata.checkpoint, b->metadata.checkpoint);
        return order ?: compare_texts(a->metadata.parent, b->metadata.parent);
}

static int compare_streams(const void *a, const void *b) {
        const Stream *x = ((const BackupStream *) a)->stream, *y = ((const BackupStream *) b)->stream;
        int order = compare_runs(x, y);

        order = order ?: compare_times(&x->date, &y->date);
        order = order ?: strcmp(x->metadata.disk, y->metadata.disk);
        return order ?: strcmp(x->item->name, y->item->name);
}

/* Whether the stream is of a later run than the last. Logs tell whole seconds: one of the second in which the stream was
 * begun may be of a run behind it, and counts only for differentials, which have nothing else to tell them apart. */
static bool is_of_later_run(const LogFiles *logs, const Stream *last, const Stream *stream) {
        time_t before = last->date.tv_sec, until = stream->date.tv_sec;

        if (stream->name.level != NAME_DIFFERENTIAL || until - before <= 1)
                until--;
        return log_files_have_between(logs, before, until);
}

/* Whether the run of these streams has the disk already. */
static const BackupStream *find_disk(const Backups *backups, const Backup *backup, const char *disk) {
        for (size_t i = backup->first; i < backup->first + backup->count; i++)
                if (strcmp(backups->streams[i].stream->metadata.disk, disk) == 0)
                        return &backups->streams[i];
        return NULL;
}

/* Whether a stream goes on with the run of those before it. */
static bool goes_on(const Backups *backups, const Backup *backup, const LogFiles *logs, BackupStream *next) {
        const Stream *last = backups->streams[backup->first + backup->count - 1].stream, *stream = next->stream;
        const BackupStream *same;

        if (compare_runs(last, stream) != 0)
                return false;
        if (stream->item->place == 0 && is_of_later_run(logs, last, stream))
                return false;
        same = find_disk(backups, backup, stream->metadata.disk);
        next->is_double = same && compare_times(&same->stream->date, &stream->date) == 0;
        return !same || next->is_double;
}

static int group(const LogFiles *logs, Backups *backups) {
        backups->backups = calloc(backups->stream_count + 1, sizeof *backups->backups);
        if (!backups->backups)
                return -ENOMEM;
        for (size_t i = 0; i < backups->stream_count; i++) {
                BackupStream *next = &backups->streams[i];
                Backup *last = backups->count > 0 ? &backups->backups[backups->count - 1] : NULL;

                if (!last || !goes_on(backups, last, logs, next))
                        backups->backups[backups->count++] = (Backup) { .place = next->stream->item->place, .first = i };
                backups->backups[backups->count - 1].count++;
                next->backup = backups->count - 1;
        }
        return 0;
}

bool backup_is_empty(const Backups *backups, const Backup *backup) {
        return &backups->backups[backups->streams[backup->first].backup] != backup;
}

/* The backup whose raw disks these are: the first full one of the place. BACKUP_NONE: they are one by themselves. */
static size_t find_base(const Backups *backups, size_t place) {
        size_t best = BACKUP_NONE;

        for (size_t i = 0; i < backups->count; i++) {
                const Backup *backup = &backups->backups[i];
                const Stream *stream = backups->streams[backup->first].stream;

                if (backup->place != place || stream->is_raw || stream->metadata.incremental ||
                    (stream->name.level != NAME_FULL && stream->name.level != NAME_COPY))
                        continue;
                if (best == BACKUP_NONE || compare_times(&backup->time, &backups->backups[best].time) < 0)
                        best = i;
        }
        return best;
}

static const char *ident_of(const Stream *stream) {
        if (stream->name.level == NAME_COPY)
                return "copy";
        return stream->metadata.checkpoint ?: stream->is_raw ? "virtnbdbackup.0" : "";
}

static int name_backup(const Survey *survey, const Backups *backups, Backup *backup) {
        const Stream *first = backups->streams[backup->first].stream;
        const Place *place = &survey->places[backup->place];
        CLEANUP(freep) char *path = found_path(survey->directory, place->entry ? place->entry->name : KEY_MARK);

        backup->level = first->name.level;
        backup->ident = ident_of(first);
        backup->time = first->date.tv_sec > 0 ? first->date : first->item->entry->st.st_mtim;
        if (!path)
                return -ENOMEM;
        if (text_format(&backup->key, "%s%s/%d%d.%s<%s.%lld.%09ld", path, place->entry ? KEY_MARK : "", backup->level,
                        first->is_raw, backup->ident, first->metadata.parent ?: "", (long long) first->date.tv_sec,
                        first->date.tv_nsec) < 0)
                return -ENOMEM;
        return 0;
}

/* Streams that make checkpoints, sorted by disk, checkpoint and date. */
typedef struct Makers {
        BackupStream **items;
        size_t count;
} Makers;

static void makers_clear(Makers *makers) {
        free(makers->items);
}

static int compare_makers(const void *a, const void *b) {
        const Stream *x = (*(BackupStream *const *) a)->stream, *y = (*(BackupStream *const *) b)->stream;
        int order = strcmp(x->metadata.disk, y->metadata.disk);

        order = order ?: compare_texts(x->metadata.checkpoint, y->metadata.checkpoint);
        return order ?: compare_times(&x->date, &y->date);
}

static int gather_makers(const Backups *backups, Makers *ret) {
        ret->items = calloc(backups->stream_count + 1, sizeof *ret->items);
        if (!ret->items)
                return -ENOMEM;
        for (size_t i = 0; i < backups->stream_count; i++)
                if (stream_makes_checkpoint(backups->streams[i].stream) && !backups->streams[i].is_double)
                        ret->items[ret->count++] = &backups->streams[i];
        qsort(ret->items, ret->count, sizeof *ret->items, compare_makers);
        return 0;
}

/* Whether two places tell of the same VM, as far as they tell. */
static bool is_same_vm(const Survey *survey, size_t a, size_t b) {
        const Place *x = &survey->places[a], *y = &survey->places[b];

        if (x->vm_uuid && y->vm_uuid)
                return strcmp(x->vm_uuid, y->vm_uuid) == 0;
        return !x->vm || !y->vm || strcmp(x->vm, y->vm) == 0;
}

/* The newest stream that made this checkpoint of the disk before the child was written, else the oldest. NULL: none. */
static const BackupStream *find_maker(const Survey *survey, const Makers *makers, const Stream *child) {
        const BackupStream *best = NULL;
        size_t low = 0, high = makers->count;

        while (low < high) { /* the first that is not before the disk and checkpoint */
                size_t middle = low + (high - low) / 2;
                const Metadata *metadata = &makers->items[middle]->stream->metadata;
                int order = strcmp(metadata->disk, child->metadata.disk)
                                    ?: compare_texts(metadata->checkpoint, child->metadata.parent);

                if (order < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        for (; low < makers->count; low++) {
                const Stream *maker = makers->items[low]->stream;

                if (strcmp(maker->metadata.disk, child->metadata.disk) != 0 ||
                    compare_texts(maker->metadata.checkpoint, child->metadata.parent) != 0)
                        break;
                if (maker == child || !is_same_vm(survey, maker->item->place, child->item->place))
                        continue;
                if (best && compare_times(&maker->date, &child->date) > 0)
                        break;
                best = makers->items[low];
        }
        return best;
}

/* A plain image of the disk that the first checkpoint was made with: it cannot tell so itself. */
static const BackupStream *find_raw_base(const Backups *backups, const Stream *child) {
        if (strcmp(child->metadata.parent, "virtnbdbackup.0") != 0 && strcmp(child->metadata.parent, "virtnbdbackup") != 0)
                return NULL;
        for (size_t i = 0; i < backups->stream_count; i++) {
                const Stream *stream = backups->streams[i].stream;

                if (stream->is_raw && stream->name.level == NAME_FULL && stream->item->place == child->item->place &&
                    strcmp(stream->metadata.disk, child->metadata.disk) == 0)
                        return &backups->streams[i];
        }
        return NULL;
}

/* Whether an increment of a VM that was off has taken the place of the checkpoint's own: the tool gives both one name. */
static bool has_been_replaced(const Backups *backups, const Stream *child) {
        for (size_t i = 0; i < backups->stream_count; i++) {
                const Stream *stream = backups->streams[i].stream;

                if (!stream->is_raw && stream->name.level == NAME_INCREMENT && stream->item->place == child->item->place &&
                    strcmp(stream->metadata.disk, child->metadata.disk) == 0 &&
                    compare_texts(stream->metadata.checkpoint, child->metadata.parent) == 0 &&
                    !stream_makes_checkpoint(stream))
                        return true;
        }
        return false;
}

static int note_problem(BackupStream *stream, const char *words) {
        stream->problem = strdup(words);
        return stream->problem ? 0 : -ENOMEM;
}

static int link_stream(const Survey *survey, const Backups *backups, const Makers *makers, BackupStream *child) {
        const Metadata *metadata = &child->stream->metadata;
        const BackupStream *parent;
        const char *why = "";

        if (child->stream->name.partial)
                return note_problem(child, "a backup that failed, or is still being written");
        if (child->stream->was_cut)
                return note_problem(child, "its end is missing: it has been cut off");
        if (!metadata->incremental)
                return 0;
        if (!metadata->parent)
                return note_problem(child, "an increment that does not tell which checkpoint it is onto");
        parent = find_maker(survey, makers, child->stream) ?: find_raw_base(backups, child->stream);
        if (parent) {
                child->parent = backups->backups[parent->backup].key;
                if (parent->stream->metadata.size < metadata->size)
                        child->grown_from = parent->stream->metadata.size;
                return 0;
        }
        if (has_been_replaced(backups, child->stream))
                why = ": an increment of the same name, taken while the VM was off, has replaced it";
        if (text_format(&child->problem, "it is onto checkpoint %s, whose backup of %s is not here%s", metadata->parent,
                        metadata->disk, why) < 0)
                return -ENOMEM;
        return 0;
}

static int link_all(const Survey *survey, Backups *backups) {
        CLEANUP(makers_clear) Makers makers = { 0 };
        int rc = gather_makers(backups, &makers);

        for (size_t i = 0; rc >= 0 && i < backups->stream_count; i++)
                rc = link_stream(survey, backups, &makers, &backups->streams[i]);
        return rc;
}

int backups_make(const Survey *survey, const LogFiles *logs, Backups *ret) {
        CLEANUP(backups_clear) Backups backups = { .stream_count = survey->stream_count };
        int rc;

        backups.streams = calloc(backups.stream_count + 1, sizeof *backups.streams);
        if (!backups.streams)
                return -ENOMEM;
        for (size_t i = 0; i < backups.stream_count; i++)
                backups.streams[i] = (BackupStream) { .stream = &survey->streams[i], .grown_from = UINT64_MAX };
        qsort(backups.streams, backups.stream_count, sizeof *backups.streams, compare_streams);
        rc = group(logs, &backups);
        for (size_t i = 0; rc >= 0 && i < backups.count; i++)
                rc = name_backup(survey, &backups, &backups.backups[i]);
        for (size_t i = 0; rc >= 0 && i < backups.stream_count; i++) {
                size_t base = backups.streams[i].stream->is_raw ? find_base(&backups, backups.streams[i].stream->item->place)
                                                                : BACKUP_NONE;

                if (base != BACKUP_NONE)
                        backups.streams[i].backup = base;
        }
        if (rc >= 0)
                rc = link_all(survey, &backups);
        if (rc < 0)
                return rc;
        *ret = backups;
        backups = (Backups) { 0 };
        return 0;
}

void backups_clear(Backups *backups) {
        for (size_t i = 0; i < backups->stream_count; i++)
                free(backups->streams[i].problem);
        for (size_t i = 0; i < backups->count; i++)
                free(backups->backups[i].key);
        free(backups->streams);
        free(backups->backups);
        *backups = (Backups) { 0 };
}
