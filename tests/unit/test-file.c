#include "util/file.h"

#include <errno.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "temporary.h"
#include "util/directory.h"

static void files_are_read_whole_or_refused(void) {
        WITH_DIRECTORY(t);
        CLEANUP(freep) char *text = NULL;
        Reason reason = REASON_INIT;
        size_t length;

        CHECK_INT(create_file(t.fd, "file", "hello", 5, &reason), 0);
        CHECK_INT(read_file(t.fd, "file", 4, &text, &length, &reason), -EFBIG);
        CHECK_SAYS(reason, "longer than 4 bytes");
        CHECK_INT(read_file(t.fd, "file", 5, &text, &length, &reason), 0);
        CHECK_INT(length, 5);
        CHECK_TEXT(text, "hello");
        freep(&text);
        text = NULL;
        CHECK_INT(read_file(t.fd, "nothing", 5, &text, &length, &reason), -ENOENT);
        CHECK_SAYS(reason, "nothing: No such file");
        CHECK_INT(mkfifoat(t.fd, "fifo", 0600), 0);
        CHECK_INT(read_file(t.fd, "fifo", 5, &text, &length, &reason), -EINVAL);
        CHECK_SAYS(reason, "not a regular file");
        CHECK_INT(read_file(t.fd, ".", 5, &text, &length, &reason), -EISDIR);
        CHECK(!text);
}

static void a_name_that_is_taken_is_never_replaced(void) {
        WITH_DIRECTORY(t);
        CLEANUP(freep) char *text = NULL;
        Reason reason = REASON_INIT;
        size_t length;

        CHECK_INT(create_file(t.fd, "file", "first", 5, &reason), 0);
        CHECK_INT(create_file(t.fd, "file", "second", 6, &reason), -EEXIST);
        CHECK_SAYS(reason, "the name is taken");
        CHECK_INT(read_file(t.fd, "file", 100, &text, &length, &reason), 0);
        CHECK_TEXT(text, "first");
        freep(&text);
        text = NULL;
        CHECK_INT(replace_file(t.fd, "file", "third", 5, &reason), 0);
        CHECK_INT(read_file(t.fd, "file", 100, &text, &length, &reason), 0);
        CHECK_TEXT(text, "third");
        /* No temporary file stays, hidden ones included. */
        CHECK_INT(renameat(t.fd, "file", t.fd, "gone"), 0);
        CHECK_INT(unlinkat(t.fd, "gone", 0), 0);
        CHECK_INT(rmdir(t.path), 0);
        CHECK_INT(mkdir(t.path, 0700), 0);
}

static void of_many_creators_one_wins(void) {
        WITH_DIRECTORY(t);
        enum { CREATORS = 8, ROUNDS = 40 };
        char name[16], content[16];

        for (int round = 0; round < ROUNDS; round++) {
                pid_t children[CREATORS];
                int winners = 0;

                snprintf(name, sizeof name, "round-%d", round);
                for (int i = 0; i < CREATORS; i++) {
                        children[i] = fork();
                        CHECK(children[i] >= 0);
                        if (children[i] == 0) {
                                int rc;

                                snprintf(content, sizeof content, "%d", i);
                                rc = create_file(t.fd, name, content, strlen(content), NULL);
                                _exit(rc == 0 ? 0 : rc == -EEXIST ? 1 : 2);
                        }
                }
                for (int i = 0; i < CREATORS; i++) {
                        CLEANUP(freep) char *text = NULL;
                        size_t length;
                        int status;

                        CHECK_INT(waitpid(children[i], &status, 0), children[i]);
                        CHECK(WIFEXITED(status) && WEXITSTATUS(status) < 2);
                        if (WEXITSTATUS(status) == 1)
                                continue;
                        winners++;
                        snprintf(content, sizeof content, "%d", i);
                        CHECK_INT(read_file(t.fd, name, 100, &text, &length, NULL), 0);
                        CHECK_TEXT(text, content);
                }
                CHECK_INT(winners, 1);
        }
}

static void modes_do_not_depend_on_the_umask(void) {
        static const mode_t masks[] = { 0, 022, 0777 };
        WITH_DIRECTORY(t);
        struct stat st;

        for (size_t i = 0; i < 3; i++) {
                mode_t before = umask(masks[i]);

                CHECK_INT(create_file(t.fd, "file", "x", 1, NULL), 0);
                CHECK_INT(make_directory(t.fd, "directory", NULL), 0);
                umask(before);
                CHECK_INT(fstatat(t.fd, "file", &st, 0), 0);
                CHECK_INT(st.st_mode & 07777, 0600);
                CHECK_INT(fstatat(t.fd, "directory", &st, 0), 0);
                CHECK_INT(st.st_mode & 07777, 0700);
                CHECK_INT(make_directory(t.fd, "directory", NULL), -EEXIST);
                CHECK_INT(remove_tree(t.fd, "file", NULL), -ENOTDIR);
                CHECK_INT(unlinkat(t.fd, "file", 0), 0);
                CHECK_INT(remove_tree(t.fd, "directory", NULL), 0);
        }
}

int main(void) {
        RUN(files_are_read_whole_or_refused);
        RUN(a_name_that_is_taken_is_never_replaced);
        RUN(of_many_creators_one_wins);
        RUN(modes_do_not_depend_on_the_umask);
        return unit_result();
}
