/* tests/unit/temporary.h - a directory for one test, gone with it. */
#pragma once

#include <fcntl.h>
#include <stdlib.h>

#include "unit.h"
#include "util/directory.h"

typedef struct TemporaryDirectory {
        char path[64];
        int fd;
} TemporaryDirectory;

static inline TemporaryDirectory temporary_directory(void) {
        TemporaryDirectory t = { .path = "/tmp/vbf-unit-XXXXXX" };

        CHECK(mkdtemp(t.path));
        t.fd = open(t.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK(t.fd >= 0);
        return t;
}

static inline void temporary_directory_clear(TemporaryDirectory *t) {
        CLEANUP(close_fd) int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        Reason reason = REASON_INIT;

        CHECK_INT(remove_tree(root, t->path + 1, &reason), 0);
        close(t->fd);
}

#define WITH_DIRECTORY(t) CLEANUP(temporary_directory_clear) TemporaryDirectory t = temporary_directory()
