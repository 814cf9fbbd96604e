#include "sources/job-note.h"

#include <fcntl.h>
#include <unistd.h>

#include "unit.h"
#include "util/cleanup.h"

static char tag[64], other[64 + 8];

static void what_was_noted_is_found_and_goes_away(void) {
        const JobNote note = { .domain_id = 7, .frozen = true };
        JobNote found = { 0 };

        CHECK(!job_note_find(tag, &found));
        CHECK_INT(job_note_write(tag, &note, NULL), 0);
        CHECK(!job_note_find(other, &found));
        CHECK(job_note_find(tag, &found));
        CHECK_INT(found.domain_id, 7);
        CHECK(found.frozen && !found.paused);
        job_note_remove(other);
        CHECK(job_note_find(tag, &found));
        job_note_remove(tag);
        CHECK(!job_note_find(tag, &found));
}

/* Everybody can make a file of that name. */
static void what_is_no_note_counts_for_nothing(void) {
        CLEANUP(freep) char *path = NULL;
        JobNote found;
        int fd;

        CHECK(asprintf(&path, "/var/tmp/note-%s.x", tag) > 0);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        CHECK(fd >= 0);
        CHECK_INT(write(fd, "rubbish", 7), 7);
        close(fd);
        CHECK(!job_note_find(tag, &found));
        unlink(path);
        CHECK_INT(symlink("/etc/passwd", path), 0);
        CHECK(!job_note_find(tag, &found));
        unlink(path);
}

int main(void) {
        snprintf(tag, sizeof tag, "virtbackupfs-test-%d", (int) getpid());
        snprintf(other, sizeof other, "%s-2", tag);
        RUN(what_was_noted_is_found_and_goes_away);
        RUN(what_is_no_note_counts_for_nothing);
        return unit_result();
}
