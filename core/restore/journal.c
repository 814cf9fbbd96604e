#include "restore/journal.h"

#include <errno.h>
#include <string.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/sealed-json.h"

#define FORMAT "virtbackupfs unfinished restore"
#define VERSION 1
#define SECOND_PLACE (64u << 10)
#define TEXT_MAX TARGET_GRAIN /* bytes: less than the smallest grain */

static bool has_journal(const DiskTarget *target) {
        return target->disk_size >= JOURNAL_HEAD;
}

static uint64_t place_of(uint64_t sequence) {
        return sequence % 2 == 0 ? 0 : SECOND_PLACE;
}

/* What stands in one of the places: JOURNAL_NONE where nothing good does. */
static JournalState take(const char *text, const char *what, Journal *ret) {
        CLEANUP(json_decrefp) json_t *object = NULL;
        uint64_t version, sequence, done, skipped;
        const char *format, *found;

        if (sealed_json_parse(text, strnlen(text, TEXT_MAX), &object, NULL) < 0 ||
            json_take_string(object, "format", &format, NULL) < 0 || strcmp(format, FORMAT) != 0)
                return JOURNAL_NONE;
        if (json_take_size(object, "version", &version, NULL) < 0 || version != VERSION ||
            json_take_string(object, "what", &found, NULL) < 0 || strcmp(found, what) != 0 ||
            json_take_size(object, "sequence", &sequence, NULL) < 0 || json_take_size(object, "done", &done, NULL) < 0 ||
            json_take_size(object, "skipped", &skipped, NULL) < 0 || done > ret->target->disk_size)
                return JOURNAL_OTHER;
        if (sequence >= ret->sequence) {
                ret->sequence = sequence;
                ret->done = max_u64(round_down(done, ret->target->grain), JOURNAL_HEAD);
                ret->skipped = skipped;
        }
        return JOURNAL_FOUND;
}

int journal_open(DiskTarget *target, const char *what, Journal *ret, JournalState *ret_state, Reason *reterr) {
        CLEANUP(freep) char *bytes = aligned_alloc(TARGET_GRAIN, target->grain);
        JournalState state = JOURNAL_NONE;

        if (!bytes)
                return fail_oom(reterr);
        *ret = (Journal) { .target = target, .what = what, .done = JOURNAL_HEAD };
        for (uint64_t number = 0; number < 2 && has_journal(target) && !target->clean; number++) {
                int rc = disk_target_read(target, bytes, target->grain, place_of(number), reterr);
                JournalState found;

                if (rc < 0)
                        return rc;
                found = take(bytes, what, ret);
                if (found > state)
                        state = found;
        }
        *ret_state = state;
        return 0;
}

/* Without a sync. */
static int write_note(Journal *journal, Reason *reterr) {
        DiskTarget *target = journal->target;
        CLEANUP(freep) char *bytes = aligned_alloc(TARGET_GRAIN, target->grain), *text = NULL;
        json_t *object = json_pack("{s:s,s:i,s:s,s:I,s:I,s:I}", "format", FORMAT, "version", VERSION, "what", journal->what,
                                   "sequence", (json_int_t) journal->sequence, "done", (json_int_t) journal->done,
                                   "skipped", (json_int_t) journal->skipped);
        size_t length;
        int rc;

        if (!bytes || !object) {
                json_decref(object);
                return fail_oom(reterr);
        }
        rc = sealed_json_dump(object, &text, &length, reterr);
        json_decref(object);
        if (rc < 0)
                return rc;
        if (length >= TEXT_MAX)
                return fail(reterr, -ENAMETOOLONG, "the point's or the disk's name is too long");
        memset(bytes, 0, target->grain);
        memcpy(bytes, text, length);
        return disk_target_write(target, bytes, target->grain, place_of(journal->sequence), reterr);
}

int journal_begin(Journal *journal, Reason *reterr) {
        DiskTarget *target = journal->target;
        int rc;

        journal->sequence = 0;
        journal->done = JOURNAL_HEAD;
        journal->skipped = 0;
        if (!has_journal(target))
                return target->clean ? 0 : disk_target_zero(target, target->disk_size, 0, reterr);
        rc = write_note(journal, reterr);
        if (rc == 0 && !target->clean)
                rc = disk_target_sync(target, reterr);
        if (rc == 0 && !target->clean)
                rc = disk_target_zero(target, JOURNAL_HEAD - target->grain, target->grain, reterr);
        return rc < 0 ? rc : disk_target_sync(target, reterr);
}

int journal_note(Journal *journal, uint64_t done, uint64_t skipped, Reason *reterr) {
        int rc;

        if (!has_journal(journal->target))
                return 0;
        journal->sequence++;
        journal->done = done;
        journal->skipped = skipped;
        rc = write_note(journal, reterr);
        return rc < 0 ? rc : disk_target_sync(journal->target, reterr);
}
