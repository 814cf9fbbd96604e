#include "util/program.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

#include "unit.h"
#include "util/cleanup.h"

static int run(const char *script, size_t limit, const atomic_bool *cancel, char **ret, Reason *reason) {
        const char *const argv[] = { "sh", "-c", script, NULL };

        *reason = REASON_INIT;
        return program_output(argv, limit, cancel, ret, reason);
}

static void what_it_prints_is_returned(void) {
        CLEANUP(freep) char *text = NULL;
        Reason reason;

        CHECK_INT(run("cat; echo to stderr >&2; echo to stdout", 1000, NULL, &text, &reason), 0);
        CHECK_TEXT(text, "to stdout\n");
}

static void a_failure_has_its_words(void) {
        char *text;
        Reason reason;

        CHECK_INT(run("echo it is broken >&2; echo more >&2; exit 3", 1000, NULL, &text, &reason), -EIO);
        CHECK_TEXT(reason.text, "it is broken");
        CHECK_INT(run("kill -9 $$", 1000, NULL, &text, &reason), -EIO);
        CHECK_INT(program_output((const char *const[]) { "/no/such/program", NULL }, 10, NULL, &text, &reason), -ENOENT);
        CHECK_SAYS(reason, "cannot run /no/such/program");
}

static void one_that_prints_without_end_is_read_to_its_end(void) {
        char *text;
        Reason reason;

        CHECK_INT(run("head -c 100000 /dev/zero", 1000, NULL, &text, &reason), -EFBIG);
        CHECK_SAYS(reason, "more than can be");
}

static void one_that_does_not_end_is_killed_when_canceled(void) {
        atomic_bool cancel = true;
        char *text;
        Reason reason;

        CHECK_INT(run("exec sleep 1000", 1000, &cancel, &text, &reason), -ECANCELED);
}

int main(void) {
        RUN(what_it_prints_is_returned);
        RUN(a_failure_has_its_words);
        RUN(one_that_prints_without_end_is_read_to_its_end);
        RUN(one_that_does_not_end_is_killed_when_canceled);
        return unit_result();
}
