#include <errno.h>

#include "formats/virtnbdbackup/backup.h"
#include "formats/virtnbdbackup/beside.h"
#include "formats/virtnbdbackup/domain.h"
#include "formats/virtnbdbackup/log-file.h"
#include "formats/virtnbdbackup/virtnbdbackup.h"

static FoundKind kind_of(const Stream *stream) {
        if (!stream->metadata.incremental)
                return FOUND_FULL;
        return stream->name.level == NAME_DIFFERENTIAL ? FOUND_DIFFERENTIAL : FOUND_INCREMENTAL;
}

static const char *note_of(const Survey *survey, const Stream *stream) {
        if (stream->metadata.incremental && log_file_drops_zeroes(survey, stream))
                return "ranges that the guest trimmed or zeroed since the parent may show older content: this version of "
                       "virtnbdbackup leaves them out";
        return stream->lost_trailer ? "its list of sizes is lost: they are found in the data, which takes longer" : NULL;
}

static int add_layer(const Survey *survey, const Backups *backups, const BackupStream *added) {
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
                .note = note_of(survey, stream),
                .size = stream->metadata.size,
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

static int find(FoundDirectory *directory) {
        CLEANUP(survey_clear) Survey survey = { 0 };
        CLEANUP(backups_clear) Backups backups = { 0 };
        int rc = survey_make(directory, &survey);

        if (rc < 0 || survey.stream_count == 0)
                return rc;
        rc = domains_find(&survey);
        if (rc < 0)
                return rc;
        rc = backups_make(&survey, &backups);
        for (size_t i = 0; rc >= 0 && i < backups.stream_count; i++)
                rc = add_layer(&survey, &backups, &backups.streams[i]);
        return rc < 0 ? rc : beside_add(&survey, &backups);
}

int virtnbdbackup_find(FoundDirectory *directory, Reason *reterr) {
        return find(directory) < 0 ? fail_oom(reterr) : 0;
}
