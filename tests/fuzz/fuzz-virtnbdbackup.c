/* tests/fuzz/fuzz-virtnbdbackup.c - a stream of virtnbdbackup. */
#include "fuzz-layer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
        fuzz_format(format_named("virtnbdbackup"), "vda.full.data", data, size);
        return 0;
}
