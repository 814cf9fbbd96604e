/* tests/fuzz/replay.c - gives a fuzz target each file of a directory, where there is no fuzzer. */
#include <fcntl.h>

#include "fuzz.h"
#include "util/directory.h"
#include "util/file.h"

#define INPUT_MAX (64u << 20)

int main(int argc, char **argv) {
        CLEANUP(strings_free) Strings names = { 0 };
        CLEANUP(close_fd) int fd = -1;
        Reason reason = REASON_INIT;

        if (argc != 2) {
                fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
                return 2;
        }
        fd = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || list_directory(fd, ".", &names, &reason) < 0) {
                fprintf(stderr, "cannot read %s: %s\n", argv[1], reason.text);
                return 1;
        }
        for (size_t i = 0; i < names.count; i++) {
                CLEANUP(freep) char *bytes = NULL;
                size_t length;

                printf("%s\n", names.items[i]);
                fflush(stdout);
                if (read_file(fd, names.items[i], INPUT_MAX, &bytes, &length, &reason) < 0) {
                        fprintf(stderr, "%s\n", reason.text);
                        return 1;
                }
                LLVMFuzzerTestOneInput((const uint8_t *) bytes, length);
        }
        return names.count > 0 ? 0 : 1; /* a target without a corpus tests nothing */
}
