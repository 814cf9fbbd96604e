#include "util/io.h"

#include <errno.h>

#include "temporary.h"
#include "util/directory.h"
#include "util/file.h"

static void paths_that_lead_out_are_refused(void) {
        WITH_DIRECTORY(t);
        CLEANUP(freep) char *text = NULL;
        size_t length;

        CHECK_INT(symlinkat("/etc", t.fd, "etc"), 0);
        CHECK_INT(symlinkat("file", t.fd, "link"), 0);
        CHECK_INT(create_file(t.fd, "file", "x", 1, NULL), 0);
        CHECK_INT(open_beneath(t.fd, "etc/passwd", O_RDONLY, 0), -ELOOP);
        CHECK_INT(open_beneath(t.fd, "link", O_RDONLY, 0), -ELOOP);
        CHECK_INT(open_beneath(t.fd, "/etc/passwd", O_RDONLY, 0), -EXDEV);
        CHECK_INT(open_beneath(t.fd, "../x", O_RDONLY, 0), -EXDEV);
        CHECK_INT(open_beneath(t.fd, "a/..", O_RDONLY, 0), -EXDEV);
        CHECK_INT(read_file(t.fd, "link", 10, &text, &length, NULL), -ELOOP);
        CHECK_INT(create_file(t.fd, "etc/vbf", "x", 1, NULL), -ELOOP);
        CHECK_INT(create_file(t.fd, "/vbf", "x", 1, NULL), -EXDEV);
        CHECK_INT(create_file(t.fd, "..", "x", 1, NULL), -EINVAL);
        CHECK_INT(create_file(t.fd, "a/", "x", 1, NULL), -EINVAL);
        CHECK_INT(make_directory(t.fd, "../vbf", NULL), -EXDEV);
}

static void reading_past_the_end_is_told(void) {
        WITH_DIRECTORY(t);
        CLEANUP(close_fd) int fd = -1;
        char buffer[8];

        CHECK_INT(create_file(t.fd, "file", "hello", 5, NULL), 0);
        fd = open_beneath(t.fd, "file", O_RDONLY, 0);
        CHECK_INT(pread_whole(fd, buffer, 4, 1), 0);
        CHECK(memcmp(buffer, "ello", 4) == 0);
        CHECK_INT(pread_whole(fd, buffer, 5, 1), -ENODATA);
        CHECK_INT(pread_whole(fd, buffer, 1, UINT64_MAX), -EINVAL);
}

int main(void) {
        RUN(paths_that_lead_out_are_refused);
        RUN(reading_past_the_end_is_told);
        return unit_result();
}
