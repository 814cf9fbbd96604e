#include "sources/job-note.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "util/cleanup.h"
#include "util/directory.h"
#include "util/file.h"
#include "util/io.h"
#include "util/text.h"

#define DIRECTORY "/var/tmp"
#define PREFIX "note-" /* not the tag itself, by which leftovers are swept away */
#define NOTE_MAX 64 /* bytes */

/* The names of the tag's notes that are this user's, in the directory that *ret_fd is. */
static int list_notes(const char *tag, int *ret_fd, Strings *ret) {
        CLEANUP(strings_free) Strings names = { 0 };
        CLEANUP(close_fd) int fd = open(DIRECTORY, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        size_t length = strlen(tag);
        int rc;

        if (fd < 0)
                return -errno;
        rc = list_directory(fd, ".", &names, NULL);
        for (size_t i = 0; rc == 0 && i < names.count; i++) {
                const char *name = names.items[i];
                struct stat st;

                if (strncmp(name, PREFIX, strlen(PREFIX)) != 0 || strncmp(name + strlen(PREFIX), tag, length) != 0 ||
                    name[strlen(PREFIX) + length] != '.')
                        continue;
                if (fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid())
                        rc = strings_add(ret, name);
        }
        *ret_fd = STEAL_FD(fd);
        return rc;
}

int job_note_write(const char *tag, const JobNote *note, Reason *reterr) {
        CLEANUP(close_fd) int fd = -1;
        CLEANUP(freep) char *path = NULL;
        char text[NOTE_MAX];
        int rc;

        if (text_format(&path, DIRECTORY "/" PREFIX "%s.XXXXXX", tag) < 0)
                return fail_oom(reterr);
        fd = mkostemp(path, O_CLOEXEC);
        if (fd < 0)
                return fail_errno(reterr, -errno, "cannot make a file in " DIRECTORY);
        snprintf(text, sizeof text, "%d %d %d\n", note->domain_id, note->frozen, note->paused);
        rc = write_whole(fd, text, strlen(text));
        if (rc < 0) {
                unlink(path);
                return fail_errno(reterr, rc, "cannot write %s", path);
        }
        return 0;
}

bool job_note_find(const char *tag, JobNote *ret) {
        CLEANUP(strings_free) Strings names = { 0 };
        CLEANUP(close_fd) int fd = -1;
        bool found = false;

        if (list_notes(tag, &fd, &names) < 0)
                return false;
        for (size_t i = 0; i < names.count && !found; i++) {
                CLEANUP(freep) char *text = NULL;
                int id, frozen, paused;
                size_t length;

                if (read_file(fd, names.items[i], NOTE_MAX, &text, &length, NULL) == 0 &&
                    sscanf(text, "%d %d %d", &id, &frozen, &paused) == 3) {
                        *ret = (JobNote) { .domain_id = id, .frozen = frozen, .paused = paused };
                        found = true;
                }
        }
        return found;
}

void job_note_remove(const char *tag) {
        CLEANUP(strings_free) Strings names = { 0 };
        CLEANUP(close_fd) int fd = -1;

        if (list_notes(tag, &fd, &names) < 0)
                return;
        for (size_t i = 0; i < names.count; i++)
                unlinkat(fd, names.items[i], 0);
}
