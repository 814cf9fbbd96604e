#include <errno.h>

#include "formats/virtnbdbackup/backup.h"
#include "formats/virtnbdbackup/beside.h"
#include "formats/virtnbdbackup/domain.h"
#include "formats/virtnbdbackup/log-file.h"
#include "formats/virtnbdbackup/virtnbdbackup.h"
#include "util/bytes.h"
#include "util/parallel.h"

static FoundKind kind_of(const Stream *stream) {
        if (!stream->metadata.incremental)
                return FOUND_FULL;
        return stream->name.level == NAME_DIFFERENTIAL ? FOUND_DIFFERENTIAL : FOUND_INCREMENTAL;
}

static const char *note_of(const Stream *stream, bool drops_zeroes) {
        if (drops_zeroes)
                return "ranges that the guest trimmed or zeroed since the parent may show older content: this version of "
                       "virtnbdbackup leaves them out";
        return stream->lost_trailer ? "its list of sizes is lost: they are found in the data, which takes longer" : NULL;
}

/* What it holds at most, in bytes of the disk; 0: not told. A raw one is looked at for holes. */
static uint64_t data_of(const Stream *stream) {
        uint64_t told = stream->metadata.data;

        if (stream->is_raw || (stream->metadata.compressed && told == UINT64_MAX))
                return 0;
        return told == UINT64_MAX ? stream->item->length : max_u64(told, stream->item->length);
}

static int add_layer(const Survey *survey, const Backups *backups, const BackupStream *added, bool drops_zeroes) {
        const Stream *stream = added->stream;
        const Backup *backup = &backups->backups[added->backup];
        const Place *place = &survey->places[stream->item->place];
        CLEANUP(item_location_clear) ItemLocation at = { 0 };
        FoundLayer layer = {
                .vm = place->vm,
                .vm_uuid = place->vm_uuid,
                .point = backup->key,
                .parent = added->parent,
                .disk = stream->metadata.disk,
                .kind = kind_of(stream),
                .time = backup->time,
                .checkpoint = stream_makes_checkpoint(stream) ? stream->metadata.checkpoint : NULL,
                .problem = added->problem,
                .note = note_of(stream, drops_zeroes),
                .size = stream->metadata.size,
                .data = data_of(stream),
                .stored = stream->is_raw ? (uint64_t) stream->item->entry->st.st_blocks * 512 : stream->item->length,
        };

        if (added->is_double)
                return found_refuse(survey->directory, stream->item->entry, "the same backup is there under another name");
        if (item_location(survey, stream->item, stream->is_raw && !stream->item->member ? "raw" : "virtnbdbackup",
                          added->grown_from, &at) < 0)
                return -ENOMEM;
        layer.location = at.location;
        return found_add_layer(survey->directory, &layer);
}

/* Which increments leave zeroes out: what tells is in files. */
typedef struct Question {
        const Survey *survey;
        const LogFiles *logs;
        bool *answers; /* for each stream */
} Question;

static void ask_one(void *context, size_t index) {
        const Question *question = context;
        const Stream *stream = &question->survey->streams[index];

        question->answers[index] = stream->metadata.incremental &&
                                   log_files_drop_zeroes(question->logs, question->survey, stream);
}

static int find(FoundDirectory *directory) {
        CLEANUP(survey_clear) Survey survey = { 0 };
        CLEANUP(log_files_clear) LogFiles logs = { 0 };
        CLEANUP(backups_clear) Backups backups = { 0 };
        CLEANUP(freep) bool *drops_zeroes = NULL;
        int rc = survey_make(directory, &survey);

        if (rc < 0 || survey.stream_count == 0)
                return rc;
        rc = domains_find(&survey);
        if (rc < 0)
                return rc;
        drops_zeroes = calloc(survey.stream_count, sizeof *drops_zeroes);
        if (!drops_zeroes || log_files_gather(&survey, &logs) < 0)
                return -ENOMEM;
        rc = backups_make(&survey, &logs, &backups);
        if (rc >= 0)
                parallel_for(survey.stream_count, SURVEY_THREADS, ask_one, &(Question) { &survey, &logs, drops_zeroes });
        for (size_t i = 0; rc >= 0 && i < backups.stream_count; i++)
                rc = add_layer(&survey, &backups, &backups.streams[i],
                               drops_zeroes[backups.streams[i].stream - survey.streams]);
        return rc < 0 ? rc : beside_add(&survey, &backups);
}

int virtnbdbackup_find(FoundDirectory *directory, Reason *reterr) {
        return find(directory) < 0 ? fail_oom(reterr) : 0;
}
