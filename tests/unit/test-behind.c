/* What is written behind is all there, in its order and no more; or the first error is told. */
#include "export/behind.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "random.h"
#include "temporary.h"
#include "util/bytes.h"
#include "util/io.h"

#define MIB (1u << 20)

static DirectFile make_file(const TemporaryDirectory *directory, bool direct) {
        DirectFile file = { openat(directory->fd, "file", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), -1 };

        CHECK(file.fd >= 0);
        if (direct) /* -1 where the file system does not know how */
                file.direct_fd = openat(directory->fd, "file", O_RDWR | O_DIRECT | O_CLOEXEC);
        return file;
}

static void close_file_again(DirectFile *file) {
        close(file->fd);
        close_fd(&file->direct_fd);
}

static void files_of_any_length_are_whole(void) {
        static const uint64_t lengths[] = { 0, 1, 512, 4096, 4 * MIB - 1, 4 * MIB, 4 * MIB + 512, 33 * MIB + 77 };
        CLEANUP(temporary_directory_clear) TemporaryDirectory directory = temporary_directory();
        CLEANUP(freep) unsigned char *bytes = malloc(40 * MIB), *found = malloc(40 * MIB);

        CHECK(bytes && found);
        for (size_t i = 0; i < 40 * MIB; i += 8)
                store_le64(bytes + i, random_u64());
        for (size_t i = 0; i < 2 * sizeof lengths / sizeof *lengths; i++) {
                CLEANUP(close_file_again) DirectFile file = make_file(&directory, i % 2);
                CLEANUP(behind_freep) Behind *behind = NULL;
                uint64_t length = lengths[i / 2], at = 0;
                Reason reason = REASON_INIT;
                struct stat st;

                CHECK_INT(behind_new(&file, "file", &behind, &reason), 0);
                while (at < length) {
                        uint64_t part = min_u64(length - at, 1 + random_below(random_below(2) ? 5000 : 9 * MIB));

                        CHECK_INT(behind_write(behind, bytes + at, part, &reason), 0);
                        at += part;
                }
                CHECK_INT(behind_finish(behind, &reason), 0);
                CHECK_INT(fstat(file.fd, &st), 0);
                CHECK_INT(st.st_size, length);
                CHECK_INT(pread_whole(file.fd, found, length, 0), 0);
                CHECK(memcmp(found, bytes, length) == 0);
                CHECK((uint64_t) st.st_blocks * 512 < length + MIB); /* nothing that was set aside is left */
        }
}

static void the_first_error_is_told(void) {
        CLEANUP(temporary_directory_clear) TemporaryDirectory directory = temporary_directory();
        const struct rlimit little = { 10 * MIB, RLIM_INFINITY }, all = { RLIM_INFINITY, RLIM_INFINITY };
        CLEANUP(freep) unsigned char *bytes = calloc(1, MIB);

        CHECK(bytes);
        signal(SIGXFSZ, SIG_IGN);
        for (unsigned i = 0; i < 4; i++) {
                CLEANUP(close_file_again) DirectFile file = make_file(&directory, i % 2);
                CLEANUP(behind_freep) Behind *behind = NULL;
                Reason reason = REASON_INIT;
                int rc = 0;

                CHECK_INT(behind_new(&file, "file", &behind, &reason), 0);
                CHECK_INT(setrlimit(RLIMIT_FSIZE, &little), 0);
                for (unsigned written = 0; rc == 0 && written < (i < 2 ? 11 : 100); written++)
                        rc = behind_write(behind, bytes, MIB, &reason);
                if (rc == 0)
                        rc = behind_finish(behind, &reason);
                CHECK_INT(setrlimit(RLIMIT_FSIZE, &all), 0);
                CHECK_INT(rc, -EFBIG);
                CHECK_SAYS(reason, "cannot write file: File too large");
        }
}

int main(void) {
        random_seed(9);
        RUN(files_of_any_length_are_whole);
        RUN(the_first_error_is_told);
        return unit_result();
}
